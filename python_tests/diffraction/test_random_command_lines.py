"""tools/c_command_lines.py: random command lines, the same again for the same seed, read here and by a program."""

import importlib.util
import json
import shlex
import stat
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from golden_images import GOLDEN, LARGEST_ERROR
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sem.diffraction import experiment_from
from sem.diffraction.comparison import compare
from sem.diffraction.flags import BY_NAME, parse

TOOL = Path(__file__).parents[2] / "tools" / "c_command_lines.py"
spec = importlib.util.spec_from_file_location("c_command_lines", TOOL)
tool = importlib.util.module_from_spec(spec)
spec.loader.exec_module(tool)
LINES = [tool.command_line(0, index) for index in range(300)]


@pytest.fixture(autouse=True)
def inputs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    tool.write_inputs(tmp_path)
    return tmp_path


def names(line):
    return [BY_NAME[word].name for word in line if word in BY_NAME]


def test_a_line_is_its_seeds_alone():
    assert [tool.command_line(0, index) for index in range(300)] == LINES
    assert tool.command_line(1, 5) != tool.command_line(0, 5)


def test_every_flag_is_drawn_some_twice_and_in_other_orders():
    drawn = Counter(name for line in LINES for name in names(line))
    assert {flag.name for flag in tool.drawn_flags(random_numbers=True)} <= set(drawn)
    twice = [line for line in LINES if max(Counter(names(line)).values()) > 1]
    assert len(twice) > 50
    first = {names(line)[0] for line in LINES}
    assert len(first) > 20
    for index in range(50):
        assert not tool.RANDOM_FLAGS & set(names(tool.command_line(0, index, random_numbers=False)))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(0, 10**6), st.integers(0, 10**6))
def test_a_line_behind_another_sets_what_it_sets_over_what_the_other_set(one, two):
    """So that reading is one pass, and the last flag to set something counts."""
    first, second = tool.command_line(7, one), tool.command_line(8, two)
    assert parse([*first, *second])[0] == parse(first)[0] | parse(second)[0]


def test_lines_give_finite_images_or_a_sentence():
    assert [(line, found) for line in LINES[:80] if (found := tool.finding(line, None, None)) is not None] == []


@pytest.mark.parametrize("reference", [False, True], ids=["kernel", "twin"])
def test_the_c_programs_images_of_drawn_lines(reference):
    golden = np.load(GOLDEN / "drawn" / "images.npz")
    lines = json.loads((GOLDEN / "drawn" / "cases.json").read_text())
    worst = {}
    for name, line in lines.items():
        model = experiment_from([*shlex.split(line), "-phi_carryover", "c-parity"]).simulator
        with torch.no_grad():
            image = model.serial() if reference else model()
        worst[line] = compare(torch.from_numpy(golden[name]), image).relative_difference
    assert len(worst) >= 160
    assert {line: error for line, error in worst.items() if not error <= LARGEST_ERROR} == {}


def test_most_lines_are_right():
    right = 0
    for line in LINES[:80]:
        try:
            right += experiment_from(line).simulator.detector.fast_pixels > 0
        except ValueError:
            continue
    assert right > 50


@pytest.mark.skipif(sys.platform == "win32", reason="a script in place of a program")
@pytest.mark.parametrize(("factor", "differs"), [(1.0, False), (1.01, True)])
def test_a_program_is_asked_the_same(inputs, monkeypatch, capsys, factor, differs):
    """The program in place of the C program is this package with an image of ``factor`` times its own."""
    program = inputs / "program"
    source = f"""#!{sys.executable}
import sys
sys.path[:0] = {sys.path!r}
import torch
from sem.diffraction import experiment_from, images
experiment = experiment_from([*sys.argv[1:], "-phi_carryover", "c-parity"])
with torch.no_grad():
    images.write_float(experiment.outputs.float_file, {factor} * experiment.simulator())
"""
    program.write_text(source)
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    right = next(index for index in range(99) if _image(index) is not None)
    arguments = ["c_command_lines.py", "--only", str(right), "--binary", str(program), "--evidence", "kept"]
    monkeypatch.setattr(sys, "argv", arguments)
    assert tool.main() == int(differs)
    printed = capsys.readouterr().out
    assert ("differs by 0.0099 of the maximum" in printed) == differs
    assert (inputs / "kept" / str(right) / "SHA256SUMS").is_file() == differs


def _image(index):
    """The image of a line that a program is asked for, None where the line is wrong or the image is 0."""
    try:
        with torch.no_grad():
            image = experiment_from(tool.command_line(0, index, random_numbers=False)).simulator()
    except ValueError:
        return None
    return image if float(image.max()) > 0 else None
