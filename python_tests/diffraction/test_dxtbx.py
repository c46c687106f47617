"""dxtbx's experiments: geometry worked out by hand, spots where Bragg's law has them, files that come back."""

import copy
import itertools
import json
import math

import numpy as np
import pytest
import torch

from sem.cli import main
from sem.diffraction import (
    Beam,
    Crystal,
    Detector,
    Reflections,
    Simulator,
    experiment_from,
    experiment_of,
    read_experiments,
    write_experiments,
)
from sem.diffraction.conventions import CONVENTIONS
from sem.diffraction.images import read_image, read_panels, write_field

AXIS = [0.9998, 0.02, -0.001]
CELL = (52.0, 61.0, 73.0, 82.0, 95.0, 101.0)


def about(axis, degrees):
    """Rotation matrix by the exponential series of its generator: not how the package does it."""
    x, y, z = np.array(axis) / np.linalg.norm(axis)
    generator = math.radians(degrees) * np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    total, term = np.eye(3), np.eye(3)
    for order in range(1, 30):
        term = term @ generator / order
        total = total + term
    return total


def unit(vector):
    return (np.array(vector) / np.linalg.norm(vector)).tolist()


def panel(name, fast, slow, origin, size=(60, 50), **more):
    return {
        "name": name,
        "type": "SENSOR_PAD",
        "fast_axis": fast,
        "slow_axis": slow,
        "origin": origin,
        "raw_image_offset": [0, 0],
        "image_size": list(size),
        "pixel_size": [0.3, 0.3],
        "trusted_range": [-1.0, 65535.0],
        "thickness": 0.45,
        "material": "Si",
        "mu": 3.6,
        "identifier": "",
        "mask": [[0, 0, 3, 4]],
        "gain": 1.0,
        "pedestal": 0.0,
        "px_mm_strategy": {"type": "ParallaxCorrectedPxMmStrategy"},
        **more,
    }


def document():
    """Four panels in two groups of a tilted detector, a kappa goniometer, a scan, a triclinic crystal."""
    frame = lambda name, fast, slow, origin, children: {  # noqa: E731
        "name": name, "type": "", "fast_axis": fast, "slow_axis": slow, "origin": origin, "children": children,
    }  # fmt: skip
    tilt = about([0.2, 1, 0.1], 7)
    turn = about([0, 0, 1], 88)
    vectors = Crystal(CELL, misset=(20, -35, 60)).vectors("exact")[0].detach().numpy()
    return {
        "__id__": "ExperimentList",
        "experiment": [
            {
                "__id__": "Experiment",
                "identifier": "b7d",
                "beam": 0,
                "detector": 0,
                "goniometer": 0,
                "scan": 0,
                "crystal": 0,
                "imageset": 0,
            }
        ],
        "imageset": [{"__id__": "ImageSequence", "template": "/data/lyso_####.cbf", "mask": None}],
        "beam": [
            {
                "__id__": "monochromatic",
                "direction": unit([0.003, -0.002, 1.0]),
                "wavelength": 1.0332,
                "divergence": 0.0,
                "sigma_divergence": 0.02,
                "polarization_normal": [0.0, 1.0, 0.0],
                "polarization_fraction": 0.97,
                "flux": 0.0,
                "transmission": 1.0,
                "probe": "x-ray",
            }
        ],
        "detector": [
            {
                "panels": [
                    panel("a", [1, 0, 0], [0, 1, 0], [0.5, 0.25, 0.1]),
                    panel("b", [0, 1, 0], [-1, 0, 0], [-0.75, 0.5, 0.0], thickness=0.0, mu=0.0),
                    panel("c", unit([1, 0.01, 0]), unit([-0.01, 1, 0]), [0.5, 0.25, 0.0], size=(40, 64)),
                    panel("d", unit([1, 0, 0.02]), [0, 1, 0], [-20.0, -18.0, 0.2]),
                ],
                "hierarchy": frame(
                    "root",
                    *(-tilt[:, :2].T * np.array([[-1], [1]])).tolist(),
                    [-2.0, 3.0, -90.0],
                    [
                        frame("left", *turn[:, :2].T.tolist(), [1.0, 2.0, 0.5], [{"panel": 2}, {"panel": 0}]),
                        frame("right", [1, 0, 0], [0, 1, 0], [-3.0, -4.0, 0.0], [{"panel": 1}, {"panel": 3}]),
                    ],
                ),
            }
        ],
        "goniometer": [
            {
                "axes": [[1.0, 0.0, 0.0], unit([0.6, 0.1, -0.8]), AXIS],
                "angles": [12.0, -25.0, 0.0],
                "names": ["GON_PHI", "GON_KAPPA", "GON_OMEGA"],
                "scan_axis": 2,
            }
        ],
        "scan": [
            {
                "image_range": [11, 20],
                "batch_offset": 0,
                "oscillation": [40.0, 0.25],
                "exposure_time": [0.1] * 10,
                "epochs": [0.0] * 10,
                "valid_image_ranges": {},
            }
        ],
        "crystal": [
            {
                "__id__": "crystal",
                **{f"real_space_{axis}": row for axis, row in zip("abc", vectors.tolist(), strict=True)},
                "space_group_hall_symbol": " P 1",
                "A_at_scan_points": [[0.0] * 9] * 11,
                "B_covariance": [0.0] * 81,
            }
        ],
        "profile": [],
        "scaling_model": [],
    }


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def written(content, name="a.expt"):
    with open(name, "w") as file:
        json.dump(content, file)
    return name


def lab(content, number):
    """Corner, fast and slow step of a panel's pixels in mm, through 4 x 4 matrices."""

    def matrix(node):
        fast, slow, origin = (np.array(node[key], float) for key in ("fast_axis", "slow_axis", "origin"))
        made = np.eye(4)
        made[:3] = np.stack([fast, slow, np.cross(fast, slow), origin], axis=1)
        return made

    def search(node, above):
        for child in node["children"]:
            if child.get("panel") == number:
                return above @ matrix(panels[number])
            found = None if "panel" in child else search(child, above @ matrix(child))
            if found is not None:
                return found
        return None

    panels, root = content["detector"][0]["panels"], content["detector"][0]["hierarchy"]
    placed = search(root, matrix(root))
    return placed[:3, 3], placed[:3, 0], placed[:3, 1]


def numbers(value, place=""):
    """Every number in a document by its place."""
    if isinstance(value, dict):
        for name, part in value.items():
            yield from numbers(part, f"{place}/{name}")
    elif isinstance(value, list):
        for index, part in enumerate(value):
            yield from numbers(part, f"{place}/{index}")
    elif isinstance(value, (int, float)) and not isinstance(value, bool):
        yield place, value


def equal(one, other):
    first, second = dict(numbers(one)), dict(numbers(other))
    assert first.keys() == second.keys()
    assert max(abs(first[place] - second[place]) for place in first) < 1e-9


def test_every_panel_is_where_the_groups_put_it():
    content = document()
    found = read_experiments(written(content))[0]
    for number, detector in enumerate(found.detectors()):
        corner, fast, slow = lab(content, number)
        frame = detector()
        for mine, other in ((frame.origin * 1e3, corner), (frame.fast, fast), (frame.slow, slow)):
            np.testing.assert_allclose(mine.detach().numpy(), other, atol=1e-10)
        assert frame.shape == tuple(reversed(content["detector"][0]["panels"][number]["image_size"]))
        assert float(frame.normal @ frame.origin) > 0
        absorbs = number != 1
        assert (frame.attenuation, frame.layers) == (pytest.approx(3600 if absorbs else 0), 1)
        assert frame.layer_step == pytest.approx(0.45e-3 if absorbs else 0)


def test_the_crystal_lies_as_the_goniometer_turns_it():
    content = document()
    found = read_experiments(written(content))[0]
    rows = np.array([content["crystal"][0][f"real_space_{axis}"] for axis in "abc"])
    axes = content["goniometer"][0]["axes"]
    fixed = about(axes[1], -25) @ about(axes[0], 12)
    for image, phi in ((None, 40), (11, 40), (15, 41)):
        crystal = found.crystal(image)
        simulator = Simulator(crystal, found.beam(), found.detector(0), Reflections(1.0))
        expected = (about(AXIS, phi) @ fixed @ rows.T).T
        np.testing.assert_allclose(simulator.orientations()[0, 0].detach().numpy() * 1e10, expected, atol=1e-9)
        assert float(crystal.oscillation) == 0.25
    with pytest.raises(ValueError, match=r"a\.expt: expected an image from 11 to 20, got 21"):
        found.crystal(21)


def test_a_setting_rotation_turns_the_spindle_too():
    content = document()
    setting, fixed = about([0, 1, 0.3], 15), about([1, 1, 0], 33)
    content["goniometer"] = [
        {
            "rotation_axis": [0.0, 1.0, 0.0],
            "fixed_rotation": fixed.ravel().tolist(),
            "setting_rotation": setting.ravel().tolist(),
        }
    ]
    found = read_experiments(written(content))[0]
    rows = np.array([content["crystal"][0][f"real_space_{axis}"] for axis in "abc"])
    simulator = Simulator(found.crystal(), found.beam(), found.detector(0), Reflections(1.0))
    expected = (setting @ about([0, 1, 0], 40) @ fixed @ rows.T).T
    np.testing.assert_allclose(simulator.orientations()[0, 0].detach().numpy() * 1e10, expected, atol=1e-9)


def spots(content, phi):
    """Reflections that a spindle angle brings close to Bragg's law, and where each meets which panel, in pixels."""
    rows = np.array([content["crystal"][0][f"real_space_{axis}"] for axis in "abc"])
    axes = content["goniometer"][0]["axes"]
    turned = about(AXIS, phi) @ about(axes[1], -25) @ about(axes[0], 12) @ np.linalg.inv(rows)
    beam = content["beam"][0]
    places = np.array(list(itertools.product(range(-20, 21), repeat=3)))
    rays = places @ turned.T - np.array(beam["direction"]) / beam["wavelength"]
    close = np.abs(np.linalg.norm(rays, axis=1) * beam["wavelength"] - 1) < 4e-5
    for place, ray in zip(places[close].tolist(), rays[close], strict=True):
        for number in range(4):
            corner, fast, slow = lab(content, number)
            x, y, w = np.linalg.solve(np.stack([fast, slow, corner], axis=1), ray)  # ray = x fast + y slow + w corner
            width, height = content["detector"][0]["panels"][number]["image_size"]
            if any(place) and w > 0 and 2 < x / w / 0.3 < width - 2 and 2 < y / w / 0.3 < height - 2:
                yield tuple(place), number, (x / w / 0.3, y / w / 0.3)


def test_spots_are_where_braggs_law_has_them():
    content = document()
    content["scan"][0]["oscillation"] = [40.0, 0.0]
    found = read_experiments(written(content))[0]
    expected = list(spots(content, 40.0))
    assert len(expected) >= 4 and len({number for _, number, _ in expected}) >= 2
    for place, number, (x, y) in expected:
        reflections = Reflections(0.0, torch.full((1, 1, 1), 100.0), place)
        crystal = found.crystal(cells=(12, 12, 12), shape="gauss")  # spots as wide as pixels
        image = Simulator(crystal, found.beam(), found.detector(number), reflections, interpolate=False)()
        slow, fast = divmod(int(image.argmax()), image.shape[1])
        assert float(image.max()) > 0 and math.hypot(fast + 0.5 - x, slow + 0.5 - y) < 0.8


def test_polarisation_is_across_the_normal():
    """At right angles to the beam a wave that swings along x sends nothing along x."""
    content = document()
    content["beam"][0] |= {"direction": [0, 0, 1], "polarization_fraction": 1.0}
    content["detector"] = [
        {
            "panels": [
                panel("x", [0, 1, 0], [0, 0, 1], [50.0, -9.0, -7.5]),
                panel("y", [1, 0, 0], [0, 0, -1], [-9.0, 50.0, 7.5]),
            ]
        }
    ]
    found = read_experiments(written(content))[0]
    assert float(found.beam().polarisation) == 1
    sums = []
    for detector in found.detectors(oversample=1):
        image = Simulator(found.crystal(), found.beam(), detector, Reflections(0.0), water=10.0, physics="exact")
        plain = Simulator(found.crystal(), found.beam(polarised=False), detector, Reflections(10.0), physics="exact")()
        image = Simulator(found.crystal(), found.beam(), detector, Reflections(10.0), physics="exact")()
        sums.append(float((image / plain)[25, 30]))
    assert sums[0] < 0.01 and sums[1] == pytest.approx(1, abs=0.01)


def test_there_and_back_is_the_same():
    content = document()
    found = read_experiments(written(content))
    again = [one.updated(one.crystal(), one.beam(), one.detectors()) for one in found]
    write_experiments("b.expt", again)
    with open("b.expt") as file:
        equal(json.load(file), content)


def test_there_and_back_through_other_numbers():
    """Every model moved, written, read, moved back and written again: each number is computed anew."""
    content = document()
    del content["crystal"][0]["A_at_scan_points"], content["crystal"][0]["B_covariance"]
    found = read_experiments(written(content))[0]
    crystal, beam, detectors = found.crystal(), found.beam(), found.detectors()
    with torch.no_grad():
        beam.wavelength += 0.01
        beam.polarisation -= 0.1
        crystal.misset += torch.tensor([3.0, 0.0, 0.0])
        crystal.phi += 1.5
        for detector in detectors:
            detector.rotation += torch.tensor([1.0, 0.0, 0.0])
            detector.near_point += torch.tensor([0.25, -0.5])
    write_experiments("b.expt", [found.updated(crystal, beam, detectors)])
    moved = read_experiments("b.expt")[0]
    assert moved.beam_numbers.wavelength == pytest.approx(1.0432)
    turned = about([1, 0, 0], 3) @ found.reciprocal().T
    np.testing.assert_allclose(moved.reciprocal().T, turned, atol=1e-12)
    for one, other, detector in zip(moved.panels, found.panels, detectors, strict=True):
        np.testing.assert_allclose(one.fast, about([1, 0, 0], 1) @ other.fast, atol=1e-12)
        np.testing.assert_allclose(one.origin, detector().origin.detach().numpy() * 1e3, atol=1e-10)
        assert np.linalg.norm(one.origin - other.origin) > 0.3
    assert moved.angles() == (41.5, 0.25)
    crystal, beam, detectors = moved.crystal(), moved.beam(), moved.detectors()
    with torch.no_grad():
        beam.wavelength -= 0.01
        beam.polarisation += 0.1
        crystal.misset -= torch.tensor([3.0, 0.0, 0.0])
        crystal.phi -= 1.5
        for detector in detectors:
            detector.near_point -= torch.tensor([0.25, -0.5])
    # a detector that turns about the sample turns its nearest point with it
    with torch.no_grad():
        for detector in detectors:
            detector.rotation -= torch.tensor([1.0, 0.0, 0.0])
    write_experiments("c.expt", [moved.updated(crystal, beam, detectors)])
    with open("c.expt") as file:
        equal(json.load(file), content)


@pytest.mark.parametrize("stored", ["legacy", "properties"])
def test_a_scan_and_what_was_refined_go_back(stored):
    content = document()
    if stored == "properties":
        scan = content["scan"][0]
        start, width = scan.pop("oscillation")
        scan["properties"] = {"oscillation": [start + n * width for n in range(10)], "epochs": [0.0] * 10}
    found = read_experiments(written(content))[0]
    assert found.angles(13) == (40.5, 0.25)
    crystal = found.crystal(13)
    with torch.no_grad():
        crystal.phi += 1
        crystal.misset[1] = 0.2
    moved = found.updated(crystal, image=13)
    assert moved.angles(13) == (41.5, 0.25)
    assert "A_at_scan_points" in found.models["crystal"] and "A_at_scan_points" not in moved.models["crystal"]
    assert any("A_at_scan_points" in note for note in found.notes())
    assert not any("A_at_scan_points" in note for note in moved.notes())
    assert moved.models["detector"] == found.models["detector"] and moved.rest == found.rest


@pytest.mark.parametrize("physics", ["nanobragg", "exact"])
@pytest.mark.parametrize("name", CONVENTIONS)
def test_what_was_made_here_gives_its_image_from_the_file(name, physics):
    crystal = Crystal(CELL, cells=(7, 7, 7), misset=(10, 20, 30), phi=5.0)
    beam = Beam(1.1, polarisation=0.9)
    more = {"beam_center": (7.0, 9.0), "rotation": (3.0, -2.0, 1.0), "two_theta": 8.0, "thickness": 100.0}
    detector = Detector((64, 56), 0.25, 70.0, convention=name, attenuation_depth=200.0, oversample=2, **more)
    image = Simulator(crystal, beam, detector, Reflections(100.0), physics=physics)()
    write_experiments("a.expt", [experiment_of(crystal, beam, [detector], space_group="P 2yb", physics=physics)])
    found = read_experiments("a.expt")[0]
    assert found.space_group == "P 2yb"
    assert found.beam_numbers.direction.tolist() == pytest.approx([0, 0, 1], abs=1e-12)
    assert found.goniometer.axis.tolist() == pytest.approx([1, 0, 0], abs=1e-12)
    parts = found.crystal(cells=(7, 7, 7)), found.beam(), found.detector(oversample=2)
    again = Simulator(*parts, Reflections(100.0), physics=physics)()
    assert float(image.max()) > 100 and float((again - image).abs().max()) < 2e-5 * float(image.max())


def test_the_table_of_the_page():
    """Where each convention's axes are in dxtbx's laboratory."""
    table = {
        "MOSFLM": ["-z", "y", "x"],
        "DENZO": ["-z", "y", "x"],
        "ADXV": ["x", "-y", "-z"],
        "XDS": ["x", "-y", "-z"],
        "DIALS": ["y", "x", "-z"],
    }
    assert set(table) == set(CONVENTIONS)
    directions = {
        f"{sign}{axis}": (1 - 2 * (sign == "-")) * np.eye(3)[n] for n, axis in enumerate("xyz") for sign in ("", "-")
    }
    for name, axes in table.items():
        convention = CONVENTIONS[name]
        made = experiment_of(Crystal(CELL), Beam(), [Detector((8, 8), convention=name)])
        turn = np.stack([directions[axis] for axis in axes], axis=1)  # columns: where x, y and z of ours are
        assert np.linalg.det(turn) == pytest.approx(1)
        for own, theirs in (
            (convention.beam, -made.beam_numbers.direction),
            (convention.fast, made.panels[0].fast),
            (convention.slow, made.panels[0].slow),
            (convention.spindle, made.goniometer.axis),
        ):
            np.testing.assert_allclose(turn @ np.array(own), theirs, atol=1e-12)


def test_a_detector_in_panels_sees_what_a_whole_one_sees_and_is_written():
    crystal = Crystal(CELL, cells=(8, 8, 8), misset=(10, 20, 30))
    beam, whole = Beam(1.1), Detector((64, 48), 0.25, 50.0, rotation=(4.0, 3.0, 2.0))
    one = experiment_of(crystal, beam, [whole])
    content = {"__id__": "ExperimentList", **{name: [model] for name, model in one.models.items() if model}}
    content["experiment"] = [{"__id__": "Experiment", **{name: 0 for name in content if name != "__id__"}}]
    large = content["detector"][0]["panels"][0]
    fast, slow, origin = (np.array(large[key]) for key in ("fast_axis", "slow_axis", "origin"))
    panels = []
    for row, column in itertools.product(range(2), range(4)):
        corner = origin + column * 16 * 0.25 * fast + row * 24 * 0.25 * slow
        panels.append(large | {"image_size": [16, 24], "origin": corner.tolist(), "name": f"{row}{column}"})
    root = {"fast_axis": [1, 0, 0], "slow_axis": [0, 1, 0], "origin": [0, 0, 0]}
    groups = [{**root, "children": [{"panel": 4 * row + column} for column in range(4)]} for row in range(2)]
    content["detector"] = [{"panels": panels, "hierarchy": {**root, "children": groups}}]
    found = read_experiments(written(content))[0]
    parts = found.crystal(cells=(8, 8, 8)), found.beam()
    images = [Simulator(*parts, detector, Reflections(100.0))() for detector in found.detectors(oversample=1)]
    expected = Simulator(crystal, beam, whole, Reflections(100.0))()
    joined = torch.cat([torch.cat(images[:4], dim=1), torch.cat(images[4:], dim=1)])
    assert joined.shape == expected.shape and float(expected.max()) > 100
    assert float((joined - expected).abs().max()) < 2e-5 * float(expected.max())

    write_field("panels.h5", images, {"wavelength": 1.1})
    assert all(np.array_equal(a, b) for a, b in zip(read_panels("panels.h5").panels, images, strict=True))
    write_experiments("b.expt", [found.updated(detectors=found.detectors())])
    with open("b.expt") as file:
        equal(json.load(file)["detector"], content["detector"])

    flags = ["-expt", "a.expt", "-N", "8", "-default_F", "100", "-oversample", "1", "-nopgm"]
    assert main(["diffraction", "simulate", *flags, "-panel", "5", "-floatfile", "f.h5"]) == 0
    assert torch.equal(read_image("f.h5").float(), images[5])


def test_flags_act_on_top_of_an_experiment(capsys):
    content = document()
    written(content)
    base = ["-expt", "a.expt", "-panel", "2", "-default_F", "100", "-N", "5"]
    simulator = experiment_from([*base, "-lambda", "1.5", "-phi", "3", "-misset", "1", "0", "0"]).simulator
    assert (float(simulator.beam.wavelength), float(simulator.crystal.phi)) == (1.5, 3)
    expected = about([1, 0, 0], 1) @ read_experiments("a.expt")[0].reciprocal().T
    np.testing.assert_allclose(simulator.crystal.vectors()[1].detach().numpy().T, expected, atol=1e-12)
    notes = experiment_from(base).notes
    assert any("crystal: A_at_scan_points not used" in note for note in notes)
    write_field(
        "mask.h5", [torch.ones(64, 40, dtype=torch.int32)], {"distance": 999.0, "pixel": 0.3, "spot": (1.0, 2.0)}
    )
    masked = experiment_from([*base, "-mask", "mask.h5"]).simulator
    plain = experiment_from(base).simulator
    assert torch.equal(masked.detector().origin, plain.detector().origin) and bool(masked.mask.all())
    with pytest.raises(ValueError, match=r"a\.expt: expected -panel with a number from 0 to 3, got none"):
        _ = experiment_from(["-expt", "a.expt", "-default_F", "1"]).simulator
    with pytest.raises(ValueError, match=r"a\.expt: expected a panel from 0 to 3, got 4"):
        experiment_from(["-expt", "a.expt", "-default_F", "1", "-panel", "4"])


def test_models_that_experiments_share_are_written_once():
    content = document()
    content["experiment"] += [content["experiment"][0] | {"identifier": "second"}]
    found = read_experiments(written(content))
    write_experiments("b.expt", found)
    with open("b.expt") as file:
        again = json.load(file)
    assert [len(again[name]) for name in ("beam", "detector", "crystal", "imageset", "profile")] == [1, 1, 1, 1, 0]
    equal(again, content)


def test_a_beam_that_is_tilted_against_its_normal_keeps_it():
    """The normal of polarisation need not be at right angles to the beam: only what is across it counts."""
    found = read_experiments(written(document()))[0]
    detectors = found.detectors()
    with torch.no_grad():
        for detector in detectors:
            detector.axes.beam.copy_(torch.nn.functional.normalize(torch.tensor([0.01, 0.0, -1.0]), dim=0))
    moved = found.updated(detectors=detectors)
    assert moved.models["beam"]["polarization_normal"] == [0.0, 1.0, 0.0]
    assert moved.beam_numbers.direction.tolist() == pytest.approx(unit([-0.01, 0, 1]), abs=1e-7)


def change(*path, to):
    def edit(content):
        place = content
        for part in path[:-1]:
            place = place[part]
        if to is None:
            del place[path[-1]]
        else:
            place[path[-1]] = to

    return edit


DEEP = {"children": [{"panel": 0}]}
for _ in range(50):
    DEEP = {"children": [DEEP]}
PANEL = ("detector", 0, "panels", 1)


@pytest.mark.parametrize(
    ("edit", "complaint"),
    [
        (change("__id__", to="DataBlock"), "expected a dxtbx experiment list (__id__ ExperimentList), got DataBlock"),
        (change("experiment", to=[]), "expected a list of 1 to 131072 experiments"),
        (change("experiment", 0, to=7), "experiment 0: expected names and values"),
        (change("experiment", 0, "beam", to=None), "experiment 0: expected a beam, got none"),
        (change("experiment", 0, "beam", to=3), "experiment 0: expected a beam from 0 to 0, got 3"),
        (change("experiment", 0, "detector", to=-1), "experiment 0: expected a detector from 0 to 0, got -1"),
        (change("experiment", 0, "crystal", to=True), "experiment 0: expected a crystal from 0 to 0, got True"),
        (change("beam", 0, to="text"), "experiment 0: beam 0: expected names and values"),
        (change("beam", 0, "wavelength", to=None), "beam: expected a beam of one wavelength, got 'monochromatic'"),
        (change("beam", 0, "wavelength", to=-1), "beam: expected a wavelength > 0, got -1"),
        (change("beam", 0, "wavelength", to=True), "beam: expected a finite number for wavelength, got True"),
        (change("beam", 0, "wavelength", to=10**400), "beam: expected a finite number for wavelength"),
        (change("beam", 0, "direction", to=[0, 0, 0]), "beam: expected a direction for direction, got [0, 0, 0]"),
        (change("beam", 0, "polarization_normal", to=[0.003, -0.002, 1]), "expected a polarization_normal across"),
        (change("beam", 0, "polarization_fraction", to=1.5), "expected a polarization_fraction from 0 to 1, got 1.5"),
        (change("detector", 0, "panels", to=[]), "detector: expected a list of 1 to 4096 for panels, got []"),
        (change(*PANEL, "origin", to=[0, 0]), "panel 1: expected 3 finite numbers for origin, got [0, 0]"),
        (change(*PANEL, "fast_axis", to=["a", 0, 0]), "panel 1: expected 3 finite numbers for fast_axis"),
        (change(*PANEL, "slow_axis", to=[0, 1, 0.1]), "panel 1: expected fast_axis and slow_axis at right angles"),
        (change(*PANEL, "image_size", to=[46341, 46341]), "panel 1: expected at most 67108864 pixels"),
        (change(*PANEL, "image_size", to=[2.5, 3]), "panel 1: expected whole numbers for image_size"),
        (change(*PANEL, "image_size", to=[0, 3]), "panel 1: expected an image with pixels, got 3 x 0"),
        (change(*PANEL, "pixel_size", to=[0.1, 0.2]), "panel 1: expected square pixels, got 0.1 x 0.2 mm"),
        (change(*PANEL, "mu", to=-1), "panel 1: expected thickness and mu >= 0, got 0 and -1"),
        (
            change("detector", 0, "hierarchy", "children", to=[{"panel": 9}]),
            "expected panels from 0 to 3 in the hierarchy, got 9",
        ),
        (
            change("detector", 0, "hierarchy", "children", to=[{"panel": 1}] * 2),
            "expected each panel once in the hierarchy, got 1",
        ),
        (change("detector", 0, "hierarchy", "children", to=[{"panel": 0}]), "found panel 1 in no group"),
        (change("detector", 0, "hierarchy", to=DEEP), "expected at most 32 groups in one another"),
        (change("goniometer", 0, "scan_axis", to=3), "goniometer: expected a scan_axis from 0 to 2, got 3"),
        (
            change("goniometer", 0, to={"rotation_axis": [1, 0, 0], "fixed_rotation": [1] * 9}),
            "expected a rotation for",
        ),
        (change("scan", 0, "image_range", to=[5, 1]), "scan: expected an image_range of 1 to 1048576 images, got 5 1"),
        (change("scan", 0, "image_range", to=[1, 2**30]), "scan: expected an image_range of 1 to 1048576 images"),
        (change("crystal", 0, "real_space_c", to=[1, 0, 0]), "crystal: expected real_space_a, _b and _c that span"),
    ],
)
def test_a_document_that_is_wrong_is_a_sentence(edit, complaint):
    content = document()
    if "real_space_c" in str(complaint) or "span" in complaint:
        content["crystal"][0]["real_space_a"] = [2, 0, 0]
    edit(content)
    with pytest.raises(ValueError) as error:
        read_experiments(written(content))
    assert str(error.value).startswith("a.expt: ") and complaint in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "expected an experiment list as JSON"),
        ("{", "expected an experiment list as JSON"),
        ("[" * 100000, "expected an experiment list as JSON"),
        ("[1]", "expected a dxtbx experiment list (__id__ ExperimentList), got list"),
        ('{"__id__": "ExperimentList"}', "expected a list of 1 to 131072 experiments"),
        ('{"__id__": NaN}', "expected an experiment list as JSON (NaN is no number)"),
        ('{"a": "\udcff"}', "expected an experiment list as JSON"),
    ],
)
def test_text_that_is_no_document(text, complaint):
    with open("a.expt", "wb") as file:
        file.write(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(ValueError) as error:
        read_experiments("a.expt")
    assert str(error.value).startswith("a.expt: ") and complaint in str(error.value)


def test_what_does_not_fit_is_refused():
    found = read_experiments(written(document()))[0]
    with pytest.raises(ValueError, match="detectors: expected one for each of 4 panels, got 1"):
        found.updated(detectors=[found.detector(0)])
    with pytest.raises(ValueError, match=r"detector 0: expected \(60, 50\) pixels as the panel, got \(8, 8\)"):
        found.updated(detectors=[Detector((8, 8))] * 4)
    with pytest.raises(ValueError, match="detector 0: expected a flat one, which dxtbx has, got a curved one"):
        experiment_of(Crystal(CELL), Beam(), [Detector(curved=True)])
    content = document()
    del content["experiment"][0]["crystal"]
    with pytest.raises(ValueError, match=r"a\.expt: expected an experiment with a crystal, got one without"):
        read_experiments(written(content))[0].crystal()
    still = copy.deepcopy(document())
    del still["experiment"][0]["scan"], still["experiment"][0]["goniometer"]
    crystal = read_experiments(written(still))[0].crystal()
    assert (float(crystal.phi), float(crystal.oscillation)) == (0, 0)
