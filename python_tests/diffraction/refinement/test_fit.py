"""One shot refined: the truth within its standard deviations, what is left out, and fits that are lost."""

import json
import math
from dataclasses import replace

import h5py
import pytest
import torch
from refinement_problems import BACKGROUND, FLAGS, TRUTH, beside, noisy, shot_of, simulator_at

from sem.cli import main
from sem.diffraction import experiment_from
from sem.diffraction.images import counts as whole_counts
from sem.diffraction.images import write_field, write_float, write_smv
from sem.diffraction.refinement import (
    CONVERGED,
    DIVERGED,
    RefinementSettings,
    Shot,
    Stopped,
    read_shot,
    refine,
)

MISSET = RefinementSettings(("crystal.misset",), stages=())


def pulls_of(fit, truth):
    return [(value - true) / sigma for value, true, sigma in zip(fit.values, truth, fit.deviations, strict=True)]


def test_deviations_are_those_of_the_errors():
    settings = RefinementSettings(("crystal.misset", "crystal.cells"), stages=())
    pulls = []
    for seed in range(3):
        fit = refine(simulator_at(beside()), shot_of(noisy(simulator_at(), seed)), settings)
        assert fit.status == CONVERGED, fit.reason
        assert 0.85 < fit.goodness < 1.15 and fit.explained > 0.9
        assert fit.background[0] == pytest.approx(BACKGROUND, abs=0.3)
        pulls += pulls_of(fit, (*TRUTH, 5.0, 5.0, 5.0))
    rms = math.sqrt(sum(pull * pull for pull in pulls) / len(pulls))
    assert 0.6 < rms < 1.5  # 18 numbers: the spread of their root mean square is 0.17


def test_a_gaussian_fit_with_and_without_variances():
    counts = noisy(simulator_at(), 5)
    known = refine(
        simulator_at(beside()),
        shot_of(counts, torch.full_like(counts, 4.0)),
        RefinementSettings(("crystal.misset",), likelihood="gaussian", stages=()),
    )
    estimated = refine(
        simulator_at(beside()),
        shot_of(counts),
        RefinementSettings(("crystal.misset",), likelihood="gaussian", stages=()),
    )
    assert known.status == estimated.status == CONVERGED
    assert estimated.values == pytest.approx(known.values, abs=1e-3)
    factor = math.sqrt(known.goodness)  # the residuals' variance over the one given
    assert estimated.deviations == pytest.approx([sigma * factor for sigma in known.deviations], rel=0.02)


def test_a_restraint_holds_what_the_data_does_not_need():
    counts = noisy(simulator_at(), 2)
    names = ("crystal.misset", "crystal.lengths", "beam.wavelength")
    free = refine(simulator_at(beside()), shot_of(counts), RefinementSettings(names, stages=()))
    assert "does not determine" in free.reason and "beam.wavelength" in free.reason
    assert math.isinf(free.deviations[-1]) and math.isfinite(free.deviations[0])
    assert free.to_mapping()["deviations"][-1] is None
    held = RefinementSettings(names, stages=(), restrain={"beam.wavelength": 1e-4})
    fit = refine(simulator_at(beside()), shot_of(counts), held)
    assert fit.status == CONVERGED and fit.deviations[-1] == pytest.approx(1e-4, rel=0.02)
    assert fit.values[-1] == pytest.approx(1.0, abs=2e-5)


def test_a_stage_with_broader_spots_comes_home_from_farther():
    flags = (*FLAGS, "-N", "12", "-oversample", "4")
    shot = shot_of(noisy(simulator_at(flags=flags), 3))

    def refined(*stages):
        return refine(simulator_at(beside(1.0), flags), shot, RefinementSettings(("crystal.misset",), stages=stages))

    sharp = refined()
    assert sharp.status == DIVERGED and "a minimum, but not that of the right model" in sharp.reason
    assert max(map(abs, pulls_of(sharp, TRUTH))) > 20
    staged = refined(4.0)
    assert staged.status == CONVERGED and max(map(abs, pulls_of(staged, TRUTH))) < 5
    assert len(staged.steps) == 2


def test_a_model_of_something_else_has_diverged():
    other = simulator_at((100.0, -20.0, 5.0))
    fit = refine(simulator_at(), shot_of(noisy(other, 4)), MISSET)
    assert fit.status == DIVERGED and fit.reason
    flat = torch.full((40, 40), 3.0, dtype=torch.float64)
    flat[simulator_at()() > 1] = 1.0  # darker where the model has its spots
    nothing = refine(simulator_at(), shot_of(flat), MISSET)
    assert nothing.status == DIVERGED and "nothing in common" in nothing.reason
    assert nothing.scale == 0 and all(map(math.isinf, nothing.deviations))
    assert json.dumps(nothing.to_mapping(), allow_nan=False)


def test_steps_that_do_not_suffice_are_said():
    fit = refine(
        simulator_at(beside(0.5)),
        shot_of(noisy(simulator_at(), 4)),
        RefinementSettings(("crystal.misset",), stages=(), iterations=1),
    )
    assert fit.status == DIVERGED and "after 1 steps" in fit.reason


def test_it_stops_when_asked():
    with pytest.raises(Stopped):
        refine(simulator_at(beside()), shot_of(noisy(simulator_at(), 4)), MISSET, stopped=lambda: True)


def test_what_is_not_trusted_is_not_read(tmp_path):
    photons = noisy(simulator_at(), 6)
    counts, _ = whole_counts(photons, 2.0, 40.0)
    clean = Shot(photons, torch.ones_like(photons, dtype=torch.bool))
    clean.used[5:9, :] = False
    clean.used[20, 20] = False
    spoiled = counts.clone()
    spoiled[20, 20] = 65535  # saturated
    spoiled[5:9, :] = 30000  # behind the mask
    write_smv(tmp_path / "shot.img", spoiled)
    mask = torch.ones(photons.shape)
    mask[5:9, :] = 0
    write_float(tmp_path / "mask.bin", mask)
    settings = RefinementSettings(
        ("crystal.misset",), stages=(), offset=40.0, gain=2.0, mask=str(tmp_path / "mask.bin")
    )
    simulator = simulator_at(beside())
    read = read_shot(tmp_path / "shot.img", simulator, settings)
    assert torch.equal(read.used, clean.used) and torch.equal(read.counts[read.used], clean.counts[clean.used])
    assert refine(simulator, read, settings).values == refine(simulator_at(beside()), clean, settings).values
    narrow = RefinementSettings(("crystal.misset",), trusted=(50.0, 500.0))
    used = read_shot(tmp_path / "shot.img", simulator, narrow).used
    assert torch.equal(used, (spoiled >= 50) & (spoiled <= 500))


def test_pixels_that_a_beamlines_file_calls_bad_are_left_out(tmp_path):
    pixels = noisy(simulator_at(), 6).to(torch.int32)
    pixels[3, 4] = 70000  # more than 16 bits hold, and less than this detector counts
    pixels[7, 8] = -1  # a gap between modules
    write_field(tmp_path / "shot.cbf", [pixels])
    gaussian = RefinementSettings(("crystal.misset",), likelihood="gaussian")
    read = read_shot(tmp_path / "shot.cbf", simulator_at(), gaussian)
    assert torch.equal(read.used, pixels >= 0) and read.counts[3, 4] == 70000
    with pytest.raises(ValueError, match="expected a panel from 0 to 0, got 1"):
        read_shot(tmp_path / "shot.cbf", simulator_at(), RefinementSettings(("crystal.misset",), panel=1))


def test_a_mask_of_nexus_is_its_own_pixel_mask(tmp_path):
    pixels = noisy(simulator_at(), 6)
    write_float(tmp_path / "shot.bin", pixels)
    dark = torch.ones(40, 40, dtype=torch.int32)
    dark[0, :] = 0  # nothing counted, and no bad pixel
    write_field(tmp_path / "mask.nxs", [dark])
    bad = torch.zeros(40, 40, dtype=torch.bool)
    bad[3:6, 8] = True
    with h5py.File(tmp_path / "mask.nxs", "r+") as file:
        file["entry/instrument/detector/pixel_mask"] = bad.numpy().astype("uint32")
    used = read_shot(tmp_path / "shot.bin", simulator_at(), replace(MISSET, mask=str(tmp_path / "mask.nxs"))).used
    assert torch.equal(used, ~bad)
    simulated = experiment_from([*FLAGS, "-mask", str(tmp_path / "mask.nxs")]).simulator.computed()
    assert torch.equal(simulated, ~bad)


def test_one_of_several_exposures_is_chosen(tmp_path, capsys):
    path = tmp_path / "shots.h5"
    exposures = torch.stack([noisy(simulator_at(), seed) for seed in range(3)])
    write_field(path, [exposures[0].to(torch.int32)])
    with h5py.File(path, "r+") as file:
        del file["entry/data/data"]
        file["entry/data/data"] = exposures.numpy().astype("int32")
    with pytest.raises(ValueError, match=r"shots.h5: expected one exposure, .* got 3 exposures"):
        read_shot(path, simulator_at(), MISSET)
    read = read_shot(path, simulator_at(), replace(MISSET, frame=2))
    assert torch.equal(read.counts, exposures[2])
    with pytest.raises(ValueError, match="expected an exposure from 0 to 2, got 3"):
        read_shot(path, simulator_at(), replace(MISSET, frame=3))
    (tmp_path / "start.flags").write_text(" ".join(FLAGS))
    files = [str(tmp_path / "start.flags"), str(path), "--out", str(tmp_path / "out")]
    assert main(["diffraction", "refine", *files, "--refine", "crystal.misset", "--frame", "4"]) == 1
    assert "expected an exposure from 0 to 2, got 4" in capsys.readouterr().out
    write_float(tmp_path / "shot.bin", exposures[0])
    with pytest.raises(ValueError, match="expected an exposure from 0 to 0, got 1"):
        read_shot(tmp_path / "shot.bin", simulator_at(), replace(MISSET, frame=1))
    variances = RefinementSettings(("crystal.misset",), likelihood="gaussian", variance=str(path))
    with pytest.raises(ValueError, match="got 3 exposures"):
        read_shot(tmp_path / "shot.bin", simulator_at(), variances)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"refine": ("detector.distance",) * 2}, "refine: expected each parameter once, got detector.distance several"),
        ({"refine": ()}, "refine: expected the name of a parameter, got none"),
        ({"likelihood": "cauchy"}, "likelihood: expected one of poisson, gaussian"),
        ({"variance": 1.0}, "variance: expected likelihood gaussian"),
        ({"background": "plane"}, "background: expected one of none, flat, radial"),
        ({"background": "radial", "background_terms": 1}, "background terms: expected a whole number >= 2, got 1"),
        ({"stages": (1.0,)}, "stages: expected factors > 1, got 1"),
        ({"trusted": (5.0, 5.0)}, "trusted: expected a lowest count below the highest"),
        ({"gain": 0.0}, "gain: expected a number > 0"),
        ({"explained": 1.0}, "explained: expected a number >= 0 and < 1"),
        (
            {"refine": ("beam.fluence",)},
            "refine: expected a parameter that does more than the scale does, got beam.fluence",
        ),
    ],
)
def test_settings_that_are_none(settings, message):
    with pytest.raises(ValueError, match=message):
        RefinementSettings(**{"refine": ("crystal.misset",), **settings})


def test_data_that_do_not_fit():
    counts = noisy(simulator_at(), 0)
    with pytest.raises(ValueError, match="expected none below 0 for the Poisson likelihood"):
        refine(simulator_at(), shot_of(counts - 10), MISSET)
    with pytest.raises(ValueError, match="pixels: expected some that are used"):
        Shot(counts, torch.zeros_like(counts, dtype=torch.bool))
    tophat = simulator_at(flags=(*FLAGS, "-tophat_spots"))
    with pytest.raises(ValueError, match="whose spots have gradients, got tophat"):
        refine(tophat, shot_of(counts), MISSET)
