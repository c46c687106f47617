"""Simulations by their settings: what the named ones are, what others are made of, what cannot be."""

import math

import pytest
import torch

from sem.ptycho import (
    PRESETS,
    Simulation,
    floors,
    inspect_scan,
    noise_object,
    preset,
    read_scan,
    siemens_object,
    write_scan,
)

SMALL = dict(side=16, rows=5, columns=6, step=3, lines=20, radius=4.0)
PLAIN_POWER = inspect_scan(Simulation(**SMALL).make()).probe_power


@pytest.mark.parametrize(
    ("name", "patterns", "size", "photons"), [("scan-441", 441, 186, 1e7), ("scan-32", 484, 95, 1e9)]
)
def test_presets_are_the_scans_of_that_name(name, patterns, size, photons):
    made = preset(name).make()
    assert len(made.scan) == patterns and made.object.shape == (size, size) == made.scan.object_shape(margin=0)
    assert float(made.scan.amplitudes.double().square().sum((1, 2)).mean()) == pytest.approx(photons, rel=1e-3)
    assert floors(made.object, made.scan.side // 2).amp_ssim < 0.4
    assert torch.equal(made.scan.positions, made.scan.positions.round())


def test_grid_lines_is_a_symmetric_probe_on_a_large_canvas():
    train, test = preset("grid_lines"), preset("grid_lines-test")
    assert (train.rows * train.columns, test.rows * test.columns) == (6889, 1089)
    assert (train.canvas, train.size, train.photons, train.side) == (784, 392, 1e9, 64)
    small = Simulation(**{**test.to_mapping(), "rows": 2, "columns": 2, "size": 80, "canvas": 160}).make()
    probe = small.probe[0]
    along = torch.arange(64) - 32
    outside = along.square().unsqueeze(1) + along.square() >= 16**2
    assert float(probe.imag.abs().max()) < 1e-3 * float(probe.abs().max()) and not bool(probe[outside].any())
    torch.testing.assert_close(probe[1:, 1:], probe[1:, 1:].flip(0, 1), rtol=1e-4, atol=1e-3)


def test_a_test_scan_is_of_another_object_and_alike_otherwise():
    for name, settings in PRESETS.items():
        if name.endswith("-test"):
            train = PRESETS[name.removesuffix("-test")]
            assert settings.seed_object != train.seed_object and settings.photons == train.photons
    with pytest.raises(ValueError, match="preset: expected one of scan-441, .*, got 'scan'"):
        preset("scan")


def test_every_seed_is_of_one_thing():
    base = Simulation(**SMALL).make()
    object, scan, noise = (
        Simulation(**SMALL, **{name: 9}).make() for name in ("seed_object", "seed_scan", "seed_noise")
    )
    again = Simulation(**SMALL).make()
    assert torch.equal(again.scan.amplitudes, base.scan.amplitudes)
    assert not torch.equal(object.object, base.object) and torch.equal(object.scan.positions, base.scan.positions)
    assert not torch.equal(scan.scan.positions, base.scan.positions)
    assert torch.equal(noise.object, base.object) and not torch.equal(noise.scan.amplitudes, base.scan.amplitudes)


@pytest.mark.parametrize(
    ("changed", "check"),
    [
        (dict(object="siemens"), lambda made: made.object.abs().unique().numel() > 2),
        (dict(object="noise"), lambda made: bool((made.object.abs() - 1).abs().max() < 1e-5)),
        (dict(phase=False), lambda made: not bool(made.object.imag.any())),
        (dict(probe_factor=0.25), lambda made: inspect_scan(made).probe_power == pytest.approx(PLAIN_POWER / 16)),
        (dict(modes=3), lambda made: made.probe.shape[0] == 3),
        (dict(background=2.5), lambda made: float(made.scan.background.unique()) == 2.5),
        (dict(noise=False), lambda made: bool((made.scan.amplitudes.square() % 1 > 0.01).any())),
        (dict(scan="spiral"), lambda made: bool((made.scan.positions % 1 > 0.01).any())),
        (dict(scan="raster"), lambda made: made.scan.positions[:6, 1].tolist() == [0, 3, 6, 9, 12, 15]),
    ],
)
def test_what_settings_change(changed, check, tmp_path):
    made = Simulation(**SMALL, **changed).make()
    assert len(made.scan) == 30 and check(made)
    path = tmp_path / "scan.h5"
    write_scan(path, made)
    assert torch.equal(read_scan(path).object, made.object)


def test_a_dim_probe_in_the_file_leaves_the_patterns_alone():
    right, dim = (Simulation(**SMALL, probe_factor=factor).make() for factor in (1.0, 0.25))
    assert torch.equal(right.scan.amplitudes, dim.scan.amplitudes)
    torch.testing.assert_close(dim.probe, 0.25 * right.probe)


def test_without_defocus_every_pattern_has_a_twin():
    """``conj(O(-r))`` of a patch has its pattern, to rounding; with defocus it has another."""
    for defocus, same in ((0.0, True), (4.0, False)):
        made = Simulation(**{**SMALL, "side": 17}, defocus=defocus, noise=False).make()
        patch = made.object[:17, :17]
        far = [torch.fft.fft2(made.probe[0] * wave).abs() for wave in (patch, patch.flip(0, 1).conj())]
        off = float((far[0] - far[1]).norm() / far[0].norm())
        assert (off < 1e-4) == same, off


def test_a_spiral_has_the_density_of_a_raster():
    spread = Simulation(**{**SMALL, "rows": 20, "columns": 20}, scan="spiral").positions()
    area = math.pi / 4 * float((spread.amax(0) - spread.amin(0)).prod())
    assert area / len(spread) == pytest.approx(3**2, rel=0.1)


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        (dict(modes=16, mode_share=0.1), "simulation.mode_share = 0.1: expected less than 0.06667"),
        (dict(distance=2.0), "simulation.distance: expected energy, distance, detector_pixel together"),
        (dict(size=40, canvas=30), "simulation.canvas = 30: expected at least size = 40"),
        (dict(object="cat"), "simulation.object = 'cat': expected one of lines, siemens, noise"),
        (dict(side=4), "simulation.side = 4: expected an integer >= 8"),
    ],
)
def test_impossible_settings(changed, words):
    with pytest.raises(ValueError, match=words):
        Simulation(**{**SMALL, **changed})


def test_objects_to_see_resolution_with():
    star = siemens_object(64, 9)
    assert float(star.abs().mean()) == pytest.approx(1) and float(star.angle().max()) == pytest.approx(1)
    ring = star[32 + 15, :].abs()  # spokes and gaps along a line that cuts them
    assert int((ring.diff().sign().diff() != 0).sum()) > 4
    wave = noise_object(64, 0.1, seed=3)
    assert float(wave.angle().std()) == pytest.approx(1, rel=0.2)
    phase = torch.fft.fft2(noise_object(64, 0.05, seed=3).angle())  # of so narrow a band it does not wrap much
    q = torch.fft.fftfreq(64)
    high = (q.square().unsqueeze(1) + q.square()).sqrt() > 0.25
    assert float(phase[high].abs().square().sum() / phase.abs().square().sum()) < 0.01
    with pytest.raises(ValueError, match="bandwidth: expected 0.01562 cycles per pixel or more, got 0.01"):
        noise_object(64, 0.01, seed=3)
