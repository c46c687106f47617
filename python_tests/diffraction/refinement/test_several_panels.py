"""Several panels refined together: one likelihood, one rigid detector, files of all their pixels, and back to dxtbx."""

import json
import math
from dataclasses import replace

import h5py
import pytest
import torch
from refinement_problems import TRUTH, beside, noisy, simulator_at

from sem.cli import main
from sem.diffraction import (
    Beam,
    Crystal,
    Detector,
    Panels,
    Reflections,
    experiment_of,
    read_experiments,
    read_panels,
    write_experiments,
    write_field,
)
from sem.diffraction.images import write_float
from sem.diffraction.refinement import (
    CONVERGED,
    RefinementSettings,
    Shot,
    read_model,
    read_shot,
    refine,
    refine_shots,
    tasks_from,
)
from sem.diffraction.refinement.background import background_terms
from sem.diffraction.refinement.coordinates import Coordinates
from sem.diffraction.refinement.objective import Objective, Sharpness
from sem.diffraction.refinement.panels import image_of, stacked

CELL = (70, 80, 90, 75, 85, 95)
RIGID = ("detector.distance", "detector.beam_center")
MISSET = RefinementSettings(("crystal.misset",), stages=())


def part(first, columns, rows=40, **more):
    """Columns of a detector of 40 x 40 pixels."""
    return Detector((columns, rows), 0.3, 50.0, beam_center=(6.0, 6.0 - 0.3 * first), oversample=2, **more)


def panels_at(misset=TRUTH, detectors=None, **more):
    crystal = Crystal(CELL, cells=(5, 5, 5), misset=misset)
    return Panels(crystal, Beam(1.0), detectors or halves(), Reflections(60.0), physics="exact", **more)


def halves():
    return [part(0, 20), part(20, 20, rotation=(0.0, 0.0, 2.0))]


def unequal():
    return [part(0, 24), part(24, 16, 32)]


def counts_of(panels, seed, peak=500.0, background=3.0):
    image = image_of(panels).detach().double()
    present = background_terms(panels, "flat", 2).reshape(image.shape)
    mean = (image / image.max() * peak + background) * present
    return torch.poisson(mean, generator=torch.Generator().manual_seed(seed))


def shot_of(panels, counts, variance=None):
    return Shot(counts, stacked([panel.computed() for panel in panels]), variance)


def pulls_of(fit, truth):
    return [(value - true) / sigma for value, true, sigma in zip(fit.values, truth, fit.deviations, strict=True)]


def test_panels_of_several_sizes_are_one_image():
    panels = panels_at(detectors=unequal())
    first, second = panels.images()
    image = image_of(panels)
    assert image.shape == (2, 40, 24) and torch.equal(image[0], first) and torch.equal(image[1, :32, :16], second)
    assert not image[1, 32:].any() and not image[1, :, 16:].any()


@pytest.mark.parametrize("kind", ["flat", "radial"])
def test_panels_have_one_background(kind):
    whole = background_terms(panels_at(detectors=[part(0, 40)])[0], kind, 4).reshape(40, 40, -1)
    split = background_terms(panels_at(detectors=[part(0, 10), part(10, 30)]), kind, 4).reshape(2, 40, 30, -1)
    assert torch.allclose(torch.cat([split[0, :, :10], split[1]], dim=1), whole, atol=1e-12)
    assert not split[0, :, 10:].any()


def objective_of(likelihood, sharpness, variance, reference):
    panels = panels_at(beside(), unequal())
    counts = counts_of(panels_at(detectors=unequal()), 1)
    names = ("crystal.misset", "crystal.lengths", *RIGID, "detector.rotation")
    coordinates = Coordinates(panels, names)
    shot = shot_of(panels, counts, variance)
    shot.used[0, 5:9, 3] = False
    terms = background_terms(panels, "radial", 3)
    everything = torch.ones(len(coordinates), dtype=torch.bool)

    def compute():
        return stacked(panels.images(reference=reference))

    made = Objective(compute, coordinates, shot, terms, likelihood, sharpness, everything)
    return made, coordinates


CASES = {
    "poisson": ("poisson", Sharpness(), None),
    "gaussian": ("gaussian", Sharpness(), torch.linspace(1, 9, 1920, dtype=torch.float64).reshape(2, 40, 24)),
    "blurred": ("poisson", Sharpness(2.0, 0.7), None),
}


@pytest.mark.parametrize("case", CASES)
def test_the_gradient_is_that_of_one_likelihood(case):
    twin, coordinates = objective_of(*CASES[case], reference=True)
    kernel, _ = objective_of(*CASES[case], reference=False)
    kernel.start_at(coordinates.start)
    twin.units = kernel.units
    generator = torch.Generator().manual_seed(3)
    x = 0.1 * torch.randn(len(twin.units), dtype=torch.float64, generator=generator)
    expected = torch.zeros_like(x)
    for index in range(len(x)):
        step = torch.zeros_like(x)
        step[index] = 1e-4
        expected[index] = (twin.value(x + step) - twin.value(x - step)) / 2e-4
    assert expected.abs().min() > 1e-3 * expected.norm() > 1e-3
    assert (twin.gradient(x) - expected).norm() < 1e-5 * expected.norm()
    assert (kernel.gradient(x) - expected).norm() < 1e-4 * expected.norm()


def test_no_light_is_blurred_into_another_panel():
    panels = panels_at()
    counts = counts_of(panels, 1)
    both, alone = shot_of(panels, counts), Shot(counts[1], torch.ones(40, 20, dtype=torch.bool))
    blurred = []
    for model, shot in ((panels, both), (panels[1], alone)):
        coordinates = Coordinates(model, ["crystal.misset"])
        everything = torch.ones(len(coordinates), dtype=torch.bool)
        terms = background_terms(model, "flat", 2)
        blurred.append(Objective(model, coordinates, shot, terms, "poisson", Sharpness(2.0, 0.7), everything).counts)
    assert torch.equal(blurred[0][40 * 20 :], blurred[1])


def test_two_panels_come_home_within_their_deviations():
    truth = panels_at()
    counts = counts_of(truth, 2)
    names = ("crystal.misset", *RIGID, "detector.rotation")
    panels = panels_at(beside(0.05))
    with torch.no_grad():
        panels.detector.distance += 0.1
        panels.detector.beam_center += 0.02
    settings = RefinementSettings(names, stages=(), restrain={"detector.rotation": 0.02})
    fit = refine(panels, shot_of(panels, counts), settings)
    assert fit.status == CONVERGED and fit.labels[3:5] == ("detector.distance", "detector.beam_center[0]")
    pulls = pulls_of(fit, (*TRUTH, 50.0, *truth.detector.beam_center.tolist(), 0.0, 0.0, 0.0))
    assert max(map(abs, pulls)) < 4 and max(fit.deviations) < 0.1
    assert 0.85 < fit.goodness < 1.15 and all(0.8 < goodness < 1.2 for goodness in fit.panel_goodness)
    assert [used for used, _ in fit.panels] == [800, 800]
    assert sum(chi for _, chi in fit.panels) == pytest.approx(fit.chi_squared, rel=1e-12)
    gaps = [(each[1].detector().origin - each[0].detector().origin).detach().norm() for each in (panels, truth)]
    assert abs(float(gaps[0]) - float(gaps[1])) < 1e-15  # one rigid body


def test_deviations_shrink_with_what_panels_add():
    """Two panels at one place that counted the same are the experiment done twice."""
    names = ("crystal.misset", *RIGID)
    restraint = {"detector.distance": 0.2}
    one = panels_at(beside(), [part(0, 40)])[0]
    counts = counts_of(panels_at(detectors=[part(0, 40)]), 3)
    settings = RefinementSettings(names, stages=(), restrain=restraint)
    single = refine(one, Shot(counts, torch.ones(40, 40, dtype=torch.bool)), settings)
    twice = panels_at(beside(), [part(0, 40), part(0, 40)])
    both = replace(settings, restrain={"detector.distance": 0.2 / math.sqrt(2)})
    fit = refine(twice, shot_of(twice, torch.stack([counts, counts])), both)
    # MOSFLM's beam centre has its first number along the slow axis and is half a pixel short
    values, deviations = ([numbers[place] for place in (0, 1, 2, 3, 5, 4)] for numbers in (fit.values, fit.deviations))
    assert values == pytest.approx([v + 0.15 * (n > 3) for n, v in enumerate(single.values)], abs=1e-4)
    assert [sigma * math.sqrt(2) for sigma in deviations] == pytest.approx(single.deviations, rel=2e-3)
    assert fit.chi_squared == pytest.approx(2 * single.chi_squared, rel=1e-4)
    assert fit.scale == pytest.approx(single.scale, rel=1e-4) and len(fit.background) == 1


@pytest.fixture
def files(tmp_path, monkeypatch):
    """A dxtbx experiment of two panels, flags that start beside it, and what it counts."""
    monkeypatch.chdir(tmp_path)
    truth = panels_at()
    made = experiment_of(truth.crystal, truth.beam, list(truth.detectors), physics="exact")
    write_experiments("truth.expt", [made])
    common = "-N 5 -default_F 60 -oversample 2 -physics exact"
    (tmp_path / "truth.flags").write_text(f"-expt truth.expt {common}")
    (tmp_path / "start.flags").write_text(f"-expt truth.expt -misset 0.1 -0.08 0.05 {common}")
    write_field("shot.h5", list(counts_of(read_model("truth.flags").simulator(), 4).to(torch.int32)))
    return tmp_path


def command(*words):
    return main(["diffraction", "refine", *words])


def test_the_command_takes_a_dxtbx_experiment_and_gives_one_back(files, capsys):
    wanted = ["--refine", "crystal.lengths", "crystal.misset", *RIGID, "--restrain", "detector.distance=0.02"]
    wanted += ["--stages", "1"]
    assert command("start.flags", "shot.h5", *wanted) == 0
    printed = capsys.readouterr().out
    assert "shot converged" in printed and "detector.beam_center[1]" in printed and "chi²/dof by panel: " in printed
    found = read_model("refined/shots/shot.json")
    fit = found.fit
    pulls = [(v - t) / s for v, t, s in zip(fit["values"][:3], CELL, fit["deviations"], strict=False)]
    assert max(map(abs, pulls)) < 4 and fit["values"][6] == pytest.approx(50, abs=0.08)
    assert len(fit["panels"]) == len(fit["panel_goodness"]) == 2 and min(fit["panel_goodness"]) > 0.8
    drawn = [(files / f"refined/pictures/shot-{name}.png").read_bytes() for name in ("before", "after")]
    assert all(png.startswith(b"\x89PNG") for png in drawn) and drawn[0] != drawn[1]

    # what dxtbx is given is what the model computes, panel by panel, and both are starts of further fits
    simulator = found.simulator()
    (written,), (original,) = (read_experiments(path) for path in ("refined/shots/shot.expt", "truth.expt"))
    for panel, again, before in zip(simulator, written.panels, original.panels, strict=True):
        assert again.name == before.name and again.pixels == before.pixels
        corner = panel.detector("exact").origin.detach() * 1e3
        assert corner.tolist() == pytest.approx(again.origin.tolist(), abs=1e-9)
        assert again.origin.tolist() != pytest.approx(before.origin.tolist(), abs=1e-4)
    (files / "again.flags").write_text("-expt refined/shots/shot.expt -N 5 -default_F 60 -oversample 2 -physics exact")
    image = image_of(simulator).detach()
    assert float((image_of(read_model("again.flags").simulator()) - image).abs().max()) < 1e-4 * float(image.max())
    assert command("refined/shots/shot.json", "shot.h5", *wanted, "--out", "b", "--no-pictures") == 0
    again = read_model("b/shots/shot.json").fit
    assert again["start"] == pytest.approx(fit["values"], rel=1e-9) and again["steps"] == [1]


def test_a_cell_that_nanobragg_makes_another_crystal_of_is_refused(files, capsys):
    (files / "c.flags").write_text("-expt truth.expt -N 5 -default_F 60 -oversample 2")
    assert command("c.flags", "shot.h5", "--refine", "crystal.lengths") == 1
    assert "expected -physics exact to refine the cell 70 80 90 75 85 95 by, got nanobragg" in capsys.readouterr().out


def test_masks_of_panels_leave_pixels_out(files):
    simulator = read_model("start.flags").simulator()
    clean = torch.stack([torch.from_numpy(panel) for panel in read_panels("shot.h5").panels])
    spoiled = clean.clone()
    spoiled[1, 8:30] = 900  # what the mask must hide
    spoiled[0, 3, 4] = 65535  # saturated
    write_field("spoiled.h5", list(spoiled))
    mask = torch.ones(clean.shape, dtype=torch.int32)
    mask[1, 8:30] = 0
    write_field("mask.h5", list(mask))
    settings = replace(MISSET, mask="mask.h5")
    shot = read_shot("spoiled.h5", simulator, settings)
    wanted = mask > 0
    wanted[0, 3, 4] = False
    assert torch.equal(shot.used, wanted) and torch.equal(shot.counts[wanted], clean[wanted].double())
    fit = refine(simulator, shot, settings)
    expected = refine(read_model("start.flags").simulator(), Shot(clean.double(), wanted), settings)
    assert fit.values == expected.values and fit.status == CONVERGED
    mask[1] = 0
    write_field("mask.h5", list(mask))
    fit = refine(simulator, read_shot("spoiled.h5", simulator, settings), settings)
    assert fit.panels[1] == (0, 0.0) and fit.to_mapping()["panel_goodness"][1] is None
    assert fit.panel_goodness[0] == pytest.approx(fit.goodness, rel=1e-12)


def test_variances_of_panels(files):
    simulator = read_model("start.flags").simulator()
    variance = torch.ones(2, 40, 20)
    variance[1] = 4.0
    variance[1, 0, 0] = math.nan
    write_field("variance.h5", list(variance))
    settings = RefinementSettings(("crystal.misset",), likelihood="gaussian", variance="variance.h5", stages=())
    shot = read_shot("shot.h5", simulator, settings)
    assert torch.equal(shot.variance[shot.used], variance[shot.used].double()) and int((~shot.used).sum()) == 1


def test_a_file_for_each_panel_and_many_shots_that_go_on(files):
    truth = panels_at(detectors=unequal())
    write_experiments("a.expt", [experiment_of(truth.crystal, truth.beam, list(truth.detectors), physics="exact")])
    flags = "-expt a.expt -misset 0.1 0 0 -N 5 -default_F 60 -oversample 2 -physics exact"
    (files / "a.flags").write_text(flags)
    names = [f"s{seed}" for seed in range(2)]
    for seed, name in enumerate(names):
        counts = counts_of(truth, seed).to(torch.int32)
        write_field(f"{name}_0.cbf", [counts[0]])
        write_field(f"{name}_1.cbf", [counts[1, :32, :16]])
    (files / "list.txt").write_text("".join(f"{name}_{{panel}}.cbf\n" for name in names))
    tasks = tasks_from("a.flags", "list.txt")
    assert [task.name for task in tasks] == names
    shot = read_shot(tasks[1].image, read_model("a.flags").simulator(), MISSET)
    assert torch.equal(shot.counts, counts.double()) and int((~shot.used).sum()) == 40 * 24 - 32 * 16
    whole = refine_shots(tasks, MISSET, "whole")
    assert whole.count(CONVERGED) == 2
    done = []
    part_of = refine_shots(tasks, MISSET, "part", stopped=lambda: bool(done), tell=lambda *told: done.append(told))
    assert part_of.left == ("s1",)
    refine_shots(tasks, MISSET, "part")
    for name in names:
        paths = [files / folder / "shots" / f"{name}.json" for folder in ("whole", "part")]
        one, other = (json.loads(path.read_text()) for path in paths)
        assert one["fit"]["values"] == other["fit"]["values"] and one["parameters"] == other["parameters"]
        kept = [path.with_suffix(".expt").read_bytes() for path in paths]
        assert kept[0] == kept[1]
    counts[1, 0, 0] += 1
    write_field("s1_1.cbf", [counts[1, :32, :16]])
    with pytest.raises(ValueError, match=r"s1_\{panel\}.cbf: changed since s1 was refined"):
        refine_shots(tasks, MISSET, "part")


def test_data_that_have_not_the_experiments_panels(files, capsys):
    simulator = read_model("start.flags").simulator()

    def refused(path, message, **more):
        with pytest.raises(ValueError, match=message):
            read_shot(path, simulator, replace(MISSET, **more))

    blank = torch.ones(40, 20, dtype=torch.int32)
    write_field("one.h5", [blank])
    write_field("three.h5", [blank] * 3)
    write_field("other.h5", [blank.T.contiguous()] * 2)
    write_field("p_0.cbf", [blank])
    refused("one.h5", r"one.h5: expected 2 panels as the experiment has, got 1$")
    refused("three.h5", r"three.h5: expected 2 panels as the experiment has, got 3$")
    refused("other.h5", r"expected 40 x 20 pixels, slow and fast, as panel 0 of the experiment has, got 20 x 40$")
    refused("shot.h5", r"panel: expected none, since the experiment has 2 panels, got 1", panel=1)
    refused("p_{panel}.cbf", r"p_\{panel\}.cbf: expected 2 panels as the experiment has, got 1$")
    refused("q_{panel}.cbf", "q_0.cbf: cannot be read")
    refused("shot.h5", r"one.h5: expected 2 panels as the experiment has, got 1$", mask="one.h5")
    write_field("p_1.cbf", [blank[:30]])
    refused("p_{panel}.cbf", r"p_1.cbf: expected 40 x 20 pixels, .* panel 1 of the experiment has, got 30 x 20$")
    write_field("p_1.cbf", [blank])
    with pytest.raises(ValueError, match=r"p_\{panel\}.cbf: expected one panel as the experiment has, got 2$"):
        read_shot("p_{panel}.cbf", simulator[0], MISSET)
    with h5py.File("shot.h5", "r+") as file:  # two exposures of one panel are no exposure of two
        pixels = file["entry/data/data"][0]
        del file["entry/data/data"]
        file["entry/data/data"] = pixels
    refused("shot.h5", r"shot.h5: expected 2 panels as the experiment has, got 1$")
    with pytest.raises(ValueError, match=r"counts: expected shape \[2, 40, 20\] as the model's image, got \[40, 40\]"):
        refine(simulator, Shot(torch.ones(40, 40).double(), torch.ones(40, 40, dtype=torch.bool)), MISSET)
    assert command("start.flags", "one.h5", "--refine", "crystal.misset") == 1
    assert "one.h5: expected 2 panels as the experiment has, got 1" in capsys.readouterr().out


def test_an_image_of_one_panel_has_no_axis_of_panels(tmp_path):
    write_float(tmp_path / "shot.bin", noisy(simulator_at(), 6))
    simulator = simulator_at(beside())
    shot = read_shot(tmp_path / "shot.bin", simulator, MISSET)
    assert shot.counts.shape == (40, 40)
    fit = refine(simulator, shot, MISSET)
    assert fit.before.shape == fit.sigma.shape == (40, 40) and fit.panels == ((1600, fit.chi_squared),)
    assert fit.panel_goodness == (fit.goodness,)
