"""Several panels at once: what one detector gives where they are its parts, with gradients that add up."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from sem.cli import main
from sem.diffraction import (
    Background,
    Beam,
    Crystal,
    Detector,
    Panels,
    Reflections,
    Simulator,
    conventions,
    experiment_from,
    experiment_of,
    images,
    read_experiments,
    read_panels,
    write_experiments,
    write_field,
)
from sem.diffraction.rotations import misset2umat

CELL = (70, 80, 90, 75, 85, 95)
PIXEL, DISTANCE, CENTER = 0.4, 80.0, (6.6, 6.6)
LIGHT = ("-fluence", "1e26", "-water", "0.2")
FRAME = ("origin", "fast", "slow", "normal")
SHARED = ("crystal.lengths", "crystal.misset", "beam.wavelength", "beam.polarisation", "water", "reflections.default")


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def crystal():
    return Crystal(CELL, cells=(5, 5, 5), misset=(-90, -31, 178))


def beam():
    return Beam(1.1, polarisation=0.6)


def part(first, columns, rows=32, **more):
    """Columns of a detector of 32 x 32 pixels; x of the beam centre runs along the slow axis, y along the fast one."""
    center = (CENTER[0], CENTER[1] - first * PIXEL)
    return Detector((columns, rows), PIXEL, DISTANCE, beam_center=center, oversample=2, **more)


def parts(*edges, **more):
    return [part(first, last - first, **more) for first, last in zip(edges, edges[1:], strict=False)]


def panels_of(detectors, **more):
    return Panels(crystal(), beam(), detectors, Reflections(100.0), physics="exact", water=5.0, **more)


def test_parts_of_a_detector_give_parts_of_its_image():
    whole = Simulator(crystal(), beam(), part(0, 32), Reflections(100.0), physics="exact", water=5.0)().detach()
    halves = panels_of(parts(0, 16, 32))()
    assert halves.shape == (2, 32, 16)
    assert float((torch.cat(list(halves), dim=1) - whole).abs().max()) < 1e-5 * float(whole.max())
    thirds = panels_of(parts(0, 7, 20, 32))
    assert [tuple(image.shape) for image in thirds()] == [(32, 7), (32, 13), (32, 12)]
    assert torch.equal(thirds[1](), thirds.images()[1])


def weighted(images_of_panels, weights):
    columns = torch.cat([image.double() for image in images_of_panels], dim=1)
    return (columns * weights).sum()


@pytest.mark.parametrize("reference", [True, False])
def test_gradients_of_what_is_shared_add_up(reference):
    weights = torch.rand(32, 32, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    whole = Simulator(crystal(), beam(), part(0, 32), Reflections(100.0), physics="exact", water=5.0)
    asked = whole.refine(*SHARED)
    expected = torch.autograd.grad(weighted([whole(reference=reference)], weights), asked)
    split = panels_of(parts(0, 11, 32))
    asked = split.refine(*SHARED)
    found = torch.autograd.grad(weighted(split.images(reference=reference), weights), asked)
    for name, one, other in zip(SHARED, expected, found, strict=True):
        assert float((one - other).norm()) < (1e-9 if reference else 1e-4) * float(one.norm()), name


def test_geometry_of_a_panel_has_a_gradient_of_its_own():
    split = panels_of(parts(0, 11, 32))
    weights = torch.rand(32, 32, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    names = ("detectors.0.rotation", "detectors.1.distance", "detectors.0.axes.beam")
    asked = split.refine(*names)
    gradients = torch.autograd.grad(weighted(split.images(reference=True), weights), asked)
    for name, gradient in zip(names, gradients, strict=True):
        value = dict(split.named_parameters())[name].detach()
        along = torch.randn(value.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
        step = 1e-6
        above, below = (
            torch.func.functional_call(split, {name: value + sign * step * along}, kwargs={"reference": True})
            for sign in (1, -1)
        )
        slope = (weighted(above, weights) - weighted(below, weights)) / (2 * step)
        assert float((gradient * along).sum()) == pytest.approx(float(slope.detach()), rel=1e-5), name
    # the first panel does not see how the second one lies
    (own,) = split.refine("detectors.1.rotation")
    first, second = split.images(reference=True)
    assert not first.requires_grad and torch.autograd.grad(second.sum(), own)[0].abs().max() > 0


def test_panels_move_as_one_rigid_detector():
    """Parts that moved together are parts of the detector that has moved; panels that stand still keep their bits."""
    moved, still = panels_of(parts(0, 16, 32)), panels_of(parts(0, 16, 32))
    for panel, alone in zip(moved, parts(0, 16, 32), strict=True):
        assert all(torch.equal(getattr(panel.detector(), name), getattr(alone(), name)) for name in FRAME)
    assert moved.detector.beam_center.tolist() == pytest.approx([0.4, 6.8])  # on the second panel, near its edge
    assert float(moved.detector.distance) == pytest.approx(DISTANCE)
    names = [name for name, _ in moved.named_parameters() if name.startswith("detector.")]
    assert names == [f"detector.{name}" for name in ("distance", "beam_center", "rotation", "two_theta")]
    with torch.no_grad():
        moved.detector.distance += 1.5
        moved.detector.beam_center += torch.tensor([0.3, -0.7], dtype=torch.float64)
    for panel, first in zip(moved, (0, 16), strict=True):
        center = (CENTER[0] - 0.7, CENTER[1] + 0.3 - first * PIXEL)  # MOSFLM's x runs along the slow axis
        expected = Detector((16, 32), PIXEL, DISTANCE + 1.5, beam_center=center)()
        assert float((panel.detector().origin - expected.origin).abs().max()) < 1e-15
        assert float(panel.detector().close_distance) == pytest.approx(0.0815, rel=1e-12)
    with torch.no_grad():
        still.detector.rotation += torch.tensor([0.0, 3.0, 0.0])
        still.detector.two_theta += 5.0
    before = [panel() for panel in parts(0, 16, 32)]
    after = [panel.detector() for panel in still]
    turn = misset2umat(torch.tensor([0.0, 3.0, 0.0]))
    swing = misset2umat(torch.tensor([0.0, 0.0, -5.0]))  # MOSFLM's two-theta is about -z
    for old, new in zip(before, after, strict=True):
        for name in FRAME:
            assert float((swing @ turn @ getattr(old, name) - getattr(new, name)).abs().max()) < 1e-14


def test_detectors_that_move_already_keep_their_place():
    detectors = parts(0, 16, 32)
    with torch.no_grad():
        panels_of(detectors).detector.distance += 2.0
    again = panels_of(detectors)
    assert float(again[1].detector().close_distance) == pytest.approx(0.082)
    with pytest.raises(ValueError, match="detectors: expected all of them to move together or none"):
        panels_of([*detectors, part(0, 8)])
    assert panels_of([part(0, 16)]).detector is None
    assert panels_of(parts(0, 16, 32, curved=True)).detector is None


def test_distance_and_center_are_those_of_the_panel_nearest_to_the_beam():
    far, near = part(24, 8), part(10, 12)
    assert panels_of([far, near]).detector.beam_center.tolist() == pytest.approx([6.8 - 10 * PIXEL, 6.8])
    two = [part(0, 17), part(17, 17)]  # as near as each other but for rounding: the first
    assert panels_of(two).detector.beam_center.tolist() == pytest.approx([6.8, 6.8])
    edge = Detector((16, 16), convention=replace(conventions.convention("MOSFLM"), fast=(1.0, 0.0, 0.0),
                                                 slow=(0.0, 1.0, 0.0), normal=(0.0, 0.0, 1.0)), close_distance=50.0,
                    pivot="sample")  # fmt: skip
    assert panels_of([edge, part(24, 8)]).detector.beam_center.tolist() == pytest.approx([6.8 - 24 * PIXEL, 6.8])


def test_images_of_a_background_have_one_scale():
    images_of_panels = [Background(torch.ones(32, 16).double()) for _ in range(2)]
    images_of_panels[1].scale = images_of_panels[0].scale
    panels = panels_of(parts(0, 16, 32), background=images_of_panels)
    (scale,) = panels.refine("background.scale")
    panels().sum().backward()
    assert float(scale.grad) == pytest.approx(32 * 32)


def test_parameters_have_the_names_of_their_parts():
    names = [name for name, _ in panels_of(parts(0, 16, 32)).named_parameters()]
    assert names[0] == "water" and "crystal.misset" in names and "detectors.1.rotation" in names
    assert not any(name.startswith("simulators.") for name in names)
    assert not any(name.startswith("detectors.1.axes.beam") for name in names)


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="detectors: expected at least one, got none"):
        panels_of([])
    with pytest.raises(ValueError, match=r"detector 1: expected the beam of detector 0, 1 0 0, got 0 0 1"):
        panels_of([part(0, 16), Detector((16, 32), convention="XDS")])
    with pytest.raises(ValueError, match="masks: expected one for each of 2 panels, got 1"):
        panels_of(parts(0, 16, 32), masks=[None])
    with pytest.raises(ValueError, match="parameter: expected one of water, .* got 'detectors.2.rotation'"):
        panels_of(parts(0, 16, 32)).refine("detectors.2.rotation")


def written(*edges):
    write_experiments("a.expt", [experiment_of(crystal(), beam(), parts(*edges), physics="exact")])
    return ["-expt", "a.expt", "-N", "5", "-default_F", "100", "-oversample", "2", "-physics", "exact", *LIGHT]


def simulate(*flags):
    return main(["diffraction", "simulate", *flags])


def test_every_panel_of_an_experiment_from_the_command_line(capsys):
    flags = written(0, 16, 32)
    found = read_experiments("a.expt")[0]
    model = Panels(
        found.crystal(cells=(5, 5, 5)), found.beam(fluence=1e26), found.detectors(oversample=2), Reflections(100.0),
        physics="exact", water=0.2,
    )  # fmt: skip
    expected = model().detach()
    made_here = Panels(crystal(), Beam(1.1, polarisation=0.6, fluence=1e26), parts(0, 16, 32), Reflections(100.0),
                       physics="exact", water=0.2)().detach()  # fmt: skip
    assert float((expected - made_here).abs().max()) < 1e-5 * float(made_here.max())
    assert simulate(*flags, "-floatfile", "f.h5", "-noisefile", "n.h5", "-intfile", "i.img", "-pgmfile", "p.pgm") == 0
    printed = capsys.readouterr().out
    for line in ("2 panels\n", "wrote f.h5, 2 panels\n", "wrote i_0.img, scaled by ", "wrote p_1.pgm\n", ", panel "):
        assert line in printed
    kept = read_panels("f.h5")
    assert all(np.array_equal(a, b) for a, b in zip(kept.panels, expected, strict=True))
    assert kept.settings["wavelength"] == 1.1 and not {"distance", "spot"} & set(kept.settings)
    integers = [images.read_smv(f"i_{number}.img") for number in range(2)]
    assert max(int(pixels.max()) for pixels, _ in integers) == 55040  # one scale: the other panel is darker
    scale = 55000 / float(expected.max())
    assert torch.equal(integers[0][0], images.counts(expected[0], scale)[0])
    assert float(integers[0][1]["XDS_ORGX"]) - float(integers[1][1]["XDS_ORGX"]) == pytest.approx(16)
    noisy = torch.stack([torch.from_numpy(panel) for panel in read_panels("n.h5").panels]) - 40
    generator = torch.Generator().manual_seed(1)
    for number in range(2):
        drawn = images.poisson(expected[number], generator)
        assert torch.equal(noisy[number].long(), drawn.clamp(max=65495)) and 0 < int(drawn.median()) < 60000

    assert simulate(*flags, "-panel", "1", "-floatfile", "one.h5") == 0
    assert np.array_equal(read_panels("one.h5").panels[0], expected[1])


def test_panels_of_several_sizes_get_a_file_each():
    flags = written(0, 12, 32)
    assert simulate(*flags, "-floatfile", "f.h5", "-noisefile", "n.cbf") == 0
    assert [read_panels(f"f_{number}.h5").panels[0].shape for number in range(2)] == [(32, 12), (32, 20)]
    assert read_panels("n_1.cbf").panels[0].shape == (32, 20)
    assert read_panels("f_1.h5").settings["distance"] == pytest.approx(DISTANCE)


def test_masks_of_panels():
    flags = written(0, 16, 32)
    left = torch.ones(32, 16, dtype=torch.int32)
    right = torch.ones(32, 16, dtype=torch.int32)
    right[:, 3:] = 0
    write_field("mask.h5", [left, right])
    first, second = experiment_from([*flags, "-mask", "mask.h5"]).panels
    assert bool(first.computed().all()) and torch.equal(second.computed(), right > 0)
    write_field("one.h5", [left])
    with pytest.raises(ValueError, match="one.h5: expected a mask of 2 panels as -expt has, got 1"):
        experiment_from([*flags, "-mask", "one.h5"])


def test_turns_move_the_whole_detector_and_other_geometry_needs_a_panel(capsys):
    flags = written(0, 16, 32)
    turned = experiment_from([*flags, "-detector_rotx", "5", "-spindle_axis", "1", "0.01", "0"]).panels
    straight = experiment_from(flags).panels
    gaps = [panels[1].detector().origin - panels[0].detector().origin for panels in (turned, straight)]
    assert float((gaps[0].norm() - gaps[1].norm()).abs()) < 1e-12  # rigid
    assert float((turned[1].detector().origin - straight[1].detector().origin).norm()) > 1e-3
    for flag in ("-distance 80", "-roi 0 3 0 3", "-Xbeam 3", "-xds", "-trace_pixel 2 2", "-fdet_vector 1 0 0"):
        name = flag.split()[0]
        wanted = f"{name}: expected -panel to go with it, a number from 0 to 1, since each panel has its own, got none"
        with pytest.raises(ValueError) as error:
            experiment_from([*flags, *flag.split()])
        assert str(error.value) == wanted
    with pytest.raises(ValueError, match=r"a\.expt: expected -panel with a number from 0 to 1, got none"):
        _ = experiment_from(flags).simulator
    assert experiment_from([*flags, "-img", "any.img"]).notes[-1].startswith("-img any.img is not read: -expt says")
    places = ("-ORGX 5 -ORGY 6", "-Xclose 1.8 -Yclose 2.2", "")  # what is the same point in pixels and in mm
    corners = [experiment_from([*flags, "-panel", "1", *text.split()]).simulator.detector().origin for text in places]
    assert torch.allclose(corners[0], corners[1]) and float((corners[0] - corners[2]).norm()) > 1e-3
    assert simulate(*flags, "-show_config") == 0
    assert "panel 1" in capsys.readouterr().out
