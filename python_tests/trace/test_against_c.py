"""A run against the C program, with a program in its place that takes its flags and gives its golden files."""

import gzip
import hashlib
import json
import shlex
import stat
import sys

import numpy as np
import pytest
import torch
from golden_images import GOLDEN

from sem.cli import main
from sem.diffraction import images

FOUNDING, MORE = GOLDEN / "founding", GOLDEN / "more"
BASE = json.loads((MORE / "cases.json").read_text())["p20"]["flags"]
STAND_IN = """#!{python}
import pathlib, sys
words = sys.argv[1:]
own = {{"-physics", "-phi_carryover", "-source_weighting", "-reference", "-show_config"}}
assert not own & set(words), words
assert words[words.index("-hkl") + 1].startswith("/") if "-hkl" in words else True
pathlib.Path("Fdump.bin").write_text("left behind")
print(open({log!r}).read())
if {status}:
    sys.exit("out of range")
if {image!r}:
    target = len(words) - words[::-1].index("-floatfile")
    pathlib.Path(words[target]).write_bytes(open({image!r}, "rb").read())
"""

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="a script in place of a program")


@pytest.fixture
def program(tmp_path, monkeypatch):
    """Makes the stand-in program, which writes an image and prints a log."""
    monkeypatch.chdir(tmp_path)

    def make(image, log="", status=0):
        (tmp_path / "image.bin").write_bytes(b"" if image is None else image.astype(np.float32).tobytes())
        (tmp_path / "log.txt").write_text(log)
        path = tmp_path / "program"
        source = "" if image is None else str(tmp_path / "image.bin")
        text = STAND_IN.format(python=sys.executable, log=str(tmp_path / "log.txt"), image=source, status=status)
        path.write_text(text)
        path.chmod(path.stat().st_mode | stat.S_IXUSR)
        return str(path)

    return make


def golden(name="p20"):
    return np.load(MORE / "images.npz")[name]


def run(program, flags, *more):
    return main(["diffraction", "compare", "--against-c", program, *more, *shlex.split(flags)])


def test_images_that_agree(program, tmp_path):
    assert run(program(golden()), f"{BASE} -floatfile elsewhere.bin -physics nanobragg") == 0
    assert {path.name for path in tmp_path.iterdir()} == {"program", "image.bin", "log.txt"}


def test_images_that_differ(program, capsys):
    assert run(program(1.001 * golden()), BASE) == 1
    assert "0.00" in capsys.readouterr().out


def test_evidence(program, tmp_path, capsys):
    where = tmp_path / "evidence"
    assert run(program(golden()), BASE, "--evidence", str(where)) == 0
    names = {"c.bin", "sem.bin", "c.log", "commands.txt", "versions.txt", "metrics.json", "summary.md", "SHA256SUMS"}
    assert {path.name for path in where.iterdir()} == names
    sums = dict(reversed(line.split("  ")) for line in (where / "SHA256SUMS").read_text().splitlines())
    assert sums == {name: hashlib.sha256((where / name).read_bytes()).hexdigest() for name in names - {"SHA256SUMS"}}
    metrics = json.loads((where / "metrics.json").read_text())
    assert metrics["agrees"] and metrics["image"]["relative_difference"] < 2e-5 and metrics["trace"] is None
    commands = (where / "commands.txt").read_text().splitlines()
    assert commands[0].startswith(str(tmp_path / "program")) and "-phi_carryover" not in commands[0]
    assert commands[1] == f"sem diffraction simulate {BASE} -phi_carryover c-parity"
    assert "sha256 " in (where / "versions.txt").read_text()
    assert "The two agree." in (where / "summary.md").read_text()
    ours, theirs = (images.read_float(where / name) for name in ("sem.bin", "c.bin"))
    assert torch.equal(theirs.flatten(), torch.from_numpy(golden())) and (ours - theirs).abs().max() > 0


def test_the_founding_trace(program, tmp_path, capsys):
    (tmp_path / "f.hkl").write_bytes(gzip.decompress((FOUNDING / "f.hkl.gz").read_bytes()))
    (tmp_path / "A.mat").write_bytes((FOUNDING / "A.mat").read_bytes())
    image = np.zeros((2527, 2463), dtype=np.float32)
    image[670:701, 1019:1060] = np.load(FOUNDING / "window.npz")["window"]
    flags = (FOUNDING / "founding_flags.txt").read_text().strip() + " -roi 1019 1059 670 700 -trace_pixel 685 1039"
    made = program(image, (FOUNDING / "c_trace_685_1039.log").read_text())
    assert run(made, flags, "--evidence", "e") == 0
    assert "no divergence: 31 quantities" in capsys.readouterr().out
    assert {"c_trace.txt", "sem_trace.txt"} < {path.name for path in (tmp_path / "e").iterdir()}
    assert main(["trace", "compare", "e/c_trace.txt", "e/sem_trace.txt"]) == 0
    assert run(made, f"{flags} -phi_carryover spec") == 1
    assert "first divergence: rot_a_angstroms" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("image", "status", "complaint"),
    [
        (None, 0, "expected the image that -floatfile asks for, got none"),
        (golden(), 1, "exit status 1; it printed 'out of range'"),
        (golden()[:100], 0, "expected 64 x 64 pixels of 4-byte floats, got 400 bytes"),
    ],
)
def test_a_program_that_fails(program, image, status, complaint, capsys):
    assert run(program(image, status=status), BASE) == 2
    assert complaint in capsys.readouterr().err


def test_wrong_arguments(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert run("no-such-program", BASE) == 2
    assert "no-such-program: expected a program that can be run, got none" in capsys.readouterr().err
    assert main(["diffraction", "compare", "--against-c"]) == 2
    assert "--against-c: expected a program, got none" in capsys.readouterr().err
