"""Many shots in a folder: kept, resumed, refused by name; a shot that fails stops no other; Ctrl-C; the command."""

import json
import os
import signal
import sys
import threading
from dataclasses import replace

import pytest
import torch
from refinement_problems import FLAGS, noisy, simulator_at, write_shots

from sem.cli import main
from sem.diffraction.images import write_float
from sem.diffraction.refinement import RefinementSettings, refine_shots, tasks_from

SETTINGS = RefinementSettings(("crystal.misset",), stages=())


def values_of(folder):
    shots = sorted((folder / "shots").iterdir())
    return {path.name: json.loads(path.read_text())["fit"]["values"] for path in shots}


def test_a_run_that_was_stopped_goes_on_to_the_same_result(tmp_path):
    tasks = tasks_from(*write_shots(tmp_path, 3))
    told = []
    whole = refine_shots(
        tasks, SETTINGS, tmp_path / "whole", tell=lambda result, done, total: told.append((done, total))
    )
    assert told == [(1, 3), (2, 3), (3, 3)] and whole.count("converged") == 3 and not whole.left
    done = []
    part = refine_shots(tasks, SETTINGS, tmp_path / "part", stopped=lambda: bool(done), tell=lambda *a: done.append(a))
    assert len(part.results) == 1 and part.left == ("s1", "s2")
    assert json.loads((tmp_path / "part" / "metrics.json").read_text())["left"] == 2
    kept = (tmp_path / "part" / "shots" / "s0.json").stat().st_mtime_ns
    rest = refine_shots(tasks, SETTINGS, tmp_path / "part")
    assert not rest.left and (tmp_path / "part" / "shots" / "s0.json").stat().st_mtime_ns == kept
    assert values_of(tmp_path / "part") == values_of(tmp_path / "whole")


def test_what_changed_is_refused_by_name(tmp_path):
    experiment, images = write_shots(tmp_path, 1)
    tasks = tasks_from(experiment, images)
    refine_shots(tasks, SETTINGS, tmp_path / "out")
    other = RefinementSettings(("crystal.misset",), stages=(), background="radial")
    with pytest.raises(ValueError, match="refined with background = 'flat', got 'radial'"):
        refine_shots(tasks, other, tmp_path / "out")
    write_float(images / "s0.bin", noisy(simulator_at(), 77))
    with pytest.raises(ValueError, match=r"s0.bin: changed since s0 was refined"):
        refine_shots(tasks, SETTINGS, tmp_path / "out")
    write_float(images / "s0.bin", noisy(simulator_at(), 0))
    experiment.write_text(experiment.read_text().replace("30.15", "30.16"))
    with pytest.raises(ValueError, match=r"start.json: changed since s0 was refined"):
        refine_shots(tasks, SETTINGS, tmp_path / "out")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "file").touch()
    with pytest.raises(ValueError, match="expected a new folder or one of an earlier refinement"):
        refine_shots(tasks, SETTINGS, tmp_path / "mine")


@pytest.mark.parametrize("name", ["mask", "variance"])
def test_a_file_of_the_settings_that_changed_is_refused_by_name(tmp_path, name):
    tasks = tasks_from(*write_shots(tmp_path, 1))
    path = tmp_path / f"{name}.bin"
    image = torch.full((40, 40), 4.0)
    write_float(path, image)
    likelihood = "gaussian" if name == "variance" else "poisson"
    settings = replace(SETTINGS, likelihood=likelihood, **{name: str(path)})
    refine_shots(tasks, settings, tmp_path / "out")
    assert not refine_shots(tasks, settings, tmp_path / "out").left
    image[0, 0] = 0
    write_float(path, image)
    with pytest.raises(ValueError, match=rf"{name}.bin: changed since s0 was refined"):
        refine_shots(tasks, settings, tmp_path / "out")


def test_a_shot_that_fails_is_reported_and_tried_again(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    _, images = write_shots(tmp_path, 2)
    whole = (images / "s0.bin").read_bytes()
    (images / "s0.bin").write_bytes(whole[:-4])
    arguments = ["diffraction", "refine", "start.json", "images", "--refine", "crystal.misset", "--stages", "1"]
    assert main(arguments) == 0
    printed = capsys.readouterr().out
    assert "1 of 2: s0 failed: " in printed and "expected a square image" in printed
    assert "2 of 2: s1 converged, chi²/dof" in printed and "shots/s, 0:00:00 left" in printed
    assert "1 converged, 1 failed" in printed
    metrics = json.loads((tmp_path / "refined" / "metrics.json").read_text())
    assert metrics["failed"] == metrics["converged"] == 1 and metrics["median_deviations"]["crystal.misset[0]"] > 0
    (images / "s0.bin").write_bytes(whole)
    assert main(arguments) == 0
    printed = capsys.readouterr().out
    assert "2 of 2: s0 converged" in printed and "s1" not in printed


def test_one_image_has_a_report_and_its_result_is_a_start(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    write_shots(tmp_path, 1)
    arguments = ["--refine", "crystal.misset", "crystal.cells", "--background", "radial:3"]
    assert main(["diffraction", "refine", "start.json", "images/s0.bin", *arguments]) == 0
    printed = capsys.readouterr().out
    assert "crystal.cells[2]" in printed and "standard deviation" in printed and "correlations" in printed
    names = {"settings.json", "metrics.json", "shots/s0.json", "pictures/s0-before.png", "pictures/s0-after.png"}
    assert all((tmp_path / "refined" / name).stat().st_size for name in names)
    drawn = [(tmp_path / f"refined/pictures/s0-{name}.png").read_bytes() for name in ("before", "after")]
    assert all(png.startswith(b"\x89PNG") for png in drawn) and drawn[0] != drawn[1]
    first = json.loads((tmp_path / "refined/shots/s0.json").read_text())
    again = ["refined/shots/s0.json", "images/s0.bin", *arguments, "--stages", "1", "--out", "again", "--no-pictures"]
    assert main(["diffraction", "refine", *again]) == 0
    fit = json.loads((tmp_path / "again/shots/s0.json").read_text())["fit"]
    assert fit["start"] == pytest.approx(first["fit"]["values"], rel=1e-9) and fit["steps"] == [1]
    assert fit["values"] == pytest.approx(first["fit"]["values"], abs=1e-3)
    assert not (tmp_path / "again" / "pictures").exists()


def test_ctrl_c_keeps_what_is_done(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    write_shots(tmp_path, 40)
    timer = threading.Timer(0.6, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    arguments = ["diffraction", "refine", "start.json", "images", "--refine", "crystal.misset", "--stages", "1"]
    assert main(arguments) == 0
    timer.join()
    printed = capsys.readouterr()
    assert "stopped by SIGINT; the same command goes on" in printed.err and " left" in printed.out
    metrics = json.loads((tmp_path / "refined" / "metrics.json").read_text())
    assert metrics["left"] > 0 and metrics["left"] + metrics["converged"] == 40
    assert not list((tmp_path / "refined" / "shots").glob("*.writing"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "expected images, got none"),
        ("a.bin b.json c\n", "line 1: expected an image and at most a model, got 3 words"),
        ("a.bin\nfolder/a.bin\n", "expected images of different names, got a.bin twice"),
    ],
)
def test_lists_that_are_none(tmp_path, text, message):
    (tmp_path / "list.txt").write_text(text)
    with pytest.raises(ValueError, match=message):
        tasks_from(tmp_path / "start.json", tmp_path / "list.txt")


@pytest.mark.parametrize(("library", "workers"), [("scipy.optimize", 1), ("distributed", 2)])
def test_a_library_that_is_not_there_ends_the_run(tmp_path, monkeypatch, library, workers):
    monkeypatch.setitem(sys.modules, library, None)
    tasks = tasks_from(*write_shots(tmp_path, 1))
    with pytest.raises(ImportError, match=r"pip install 'sem-torch\[crystallography\]'"):
        refine_shots(tasks, SETTINGS, tmp_path / "out", workers=workers)
    assert not list((tmp_path / "out" / "shots").iterdir())


def test_a_library_that_workers_do_not_have_ends_the_run(tmp_path, monkeypatch):
    (tmp_path / "first" / "scipy").mkdir(parents=True)
    (tmp_path / "first" / "scipy" / "__init__.py").write_text("raise ImportError('none here')\n")
    monkeypatch.syspath_prepend(tmp_path / "first")  # processes that start now look there first
    tasks = tasks_from(*write_shots(tmp_path, 1))
    with pytest.raises(ImportError, match="refinement needs scipy: pip install"):
        refine_shots(tasks, SETTINGS, tmp_path / "out", workers=2)
    assert not list((tmp_path / "out" / "shots").iterdir())


def test_pictures_that_cannot_be_drawn_are_said_before_the_fit(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    write_shots(tmp_path, 1)
    arguments = ["diffraction", "refine", "start.json", "images/s0.bin", "--refine", "crystal.misset", "--stages", "1"]
    with monkeypatch.context() as without:
        without.setitem(sys.modules, "matplotlib", None)
        assert main(arguments) != 0
        assert "--no-pictures, need matplotlib: pip install" in capsys.readouterr().err
        assert not (tmp_path / "refined").exists()
        assert main([*arguments, "--no-pictures"]) == 0
        assert main(arguments) == 0  # nothing is left to draw


def test_a_fit_outlives_pictures_that_cannot_be_written(tmp_path):
    tasks = tasks_from(*write_shots(tmp_path, 1))
    (tmp_path / "out" / "pictures" / "s0-before.png").mkdir(parents=True)
    (tmp_path / "out" / "shots").mkdir()
    settings = {"format": "sem diffraction refinement 1", "settings": SETTINGS.to_mapping()}
    (tmp_path / "out" / "settings.json").write_text(json.dumps(settings))
    with pytest.raises(OSError, match="s0-before"):
        refine_shots(tasks, SETTINGS, tmp_path / "out", pictures=True)
    assert values_of(tmp_path / "out").keys() == {"s0.json"}


def test_a_mistaken_command_does_not_bind_the_corrected_one(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    write_shots(tmp_path, 1)
    command = ["diffraction", "refine"]
    rest = ["--refine", "crystal.misset", "--stages", "1", "--no-pictures"]
    assert main([*command, "strat.json", "images/s0.bin", *rest]) == 2
    assert "strat.json: cannot be read (No such file or directory)" in capsys.readouterr().err
    assert main([*command, "start.json", "images/s0.bin", *rest, "--mask", "maks.bin"]) == 2
    assert "maks.bin: cannot be read (No such file or directory)" in capsys.readouterr().err
    assert not (tmp_path / "refined").exists()
    assert main([*command, "start.json", "images/s1.bin", *rest, "--background", "none"]) == 1
    assert "s1 failed" in capsys.readouterr().out
    assert main([*command, "start.json", "images/s0.bin", *rest]) == 0
    assert main([*command, "start.json", "images/s1.bin", *rest, "--background", "none"]) == 2  # of another image
    assert "refined with background = 'flat', got 'none'" in capsys.readouterr().err


def test_a_list_names_models_of_its_own(tmp_path):
    (tmp_path / "list.txt").write_text("a.bin own.json  # this one knows better\n\nb.bin\n")
    own, common = tasks_from(tmp_path / "start.json", tmp_path / "list.txt")
    assert own.experiment == str(tmp_path / "own.json") and own.name == "a"
    assert common.experiment == str(tmp_path / "start.json") and common.image == str(tmp_path / "b.bin")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--workers", "0"], "--workers: expected a whole number >= 1, got 0"),
        (["--background", "radial:x"], "--background: expected a number, got 'x'"),
        (["--background", "radial:nan"], "--background: expected a whole number of knots, got 'nan'"),
        (["--background", "radial:2.7"], "--background: expected a whole number of knots, got '2.7'"),
        (["--background", "radial:1"], "background terms: expected a whole number >= 2, got 1"),
        (["--background", "flat:9"], "--background: expected none, flat or radial:KNOTS, got 'flat:9'"),
        (["--restrain", "crystal.misset"], "--restrain crystal.misset: expected a number, got ''"),
    ],
)
def test_options_that_are_none(tmp_path, options, message, capsys):
    (tmp_path / "start.flags").write_text(" ".join(FLAGS))
    files = [str(tmp_path / "start.flags"), str(tmp_path / "a.bin")]
    assert main(["diffraction", "refine", *files, "--refine", "crystal.misset", *options]) == 2
    assert message in capsys.readouterr().err
