"""Runs that end early go on as those that do not, bit by bit; what no longer fits is refused by name."""

import signal
import sys

import pytest
import torch
from scan_files import same_bits

from sem.cli import main
from sem.ptycho import PIE, Recipe, Run, ScanFile, Simulation, read_result, read_state, write_scan
from sem.ptycho.engine import Engine

RECIPES = {
    "epie": dict(engine="epie", sweeps=6),
    "stages, positions": dict(engine="rpie", sweeps=3, then=("ml:4,batch=8",), positions=1, modes=2),
    "waves, positions": dict(engine="raar", sweeps=3, then=("lsqml:3,batch=9",), positions=2),
    "plateau": dict(engine="rpie", sweeps=40, then=("epie:2",), plateau=0.6),
}


@pytest.fixture(scope="module")
def made():
    return Simulation(side=16, rows=6, columns=6, step=3, lines=20, radius=4, photons=1e6).make()


def begun(made, name, **changed):
    return Run(made, Recipe(**{"chi_squared": None, **RECIPES[name], **changed}))


class Stop(Exception):
    pass


def stopped_at(sweep):
    def progress(found):
        if found.sweep + 1 == sweep:
            raise Stop

    return progress


def same(first, second):
    """Everything that a run leaves but its seconds."""
    one, other = first.result(), second.result()
    rows = [[sweep[:-1] for sweep in run.sweeps] for run in (first, second)]
    tensors = all(
        same_bits(getattr(one, key), getattr(other, key)) for key in ("object", "probe", "positions", "start")
    )
    return tensors and rows[0] == rows[1] and one.settings == other.settings and one.origin == other.origin


@pytest.mark.parametrize("name", RECIPES)
def test_a_resumed_run_is_the_whole(made, tmp_path, name):
    whole = begun(made, name)
    whole.run()
    assert whole.ended and whole.stopped is None
    for sweep in (1, 3, len(whole.sweeps) - 1):  # the third is the last of a stage
        first = begun(made, name)
        with pytest.raises(Stop):
            first.run(stopped_at(sweep))
        first.save(tmp_path / "state.h5")
        resumed = begun(made, name)
        resumed.load(tmp_path / "state.h5")
        assert same(first, resumed) and not resumed.ended and len(resumed.sweeps) == sweep
        resumed.run()
        assert same(whole, resumed) and resumed.sweeps[-1].seconds > first.sweeps[-1].seconds
        first.run()  # in the same process
        assert same(whole, first)


def test_what_ends_a_sweep_half_done_is_undone(made, tmp_path, monkeypatch):
    """Between an engine's sweep and the refinement of the positions, and inside that."""
    whole = begun(made, "waves, positions")
    whole.run()
    for place in (Engine, "refine_positions"), (Engine, "move_positions"):
        first, calls = begun(made, "waves, positions"), 0
        original = getattr(*place)

        def interrupted(self, *args, original=original, **more):
            nonlocal calls
            calls += 1
            if calls == 2:
                original(self, *args, **more)
                raise KeyboardInterrupt
            return original(self, *args, **more)

        with monkeypatch.context() as patched:
            patched.setattr(*place, interrupted)
            with pytest.raises(KeyboardInterrupt):
                first.run()
        assert len(first.sweeps) == 3
        first.save(tmp_path / "state.h5")
        resumed = begun(made, "waves, positions")
        resumed.load(tmp_path / "state.h5")
        resumed.run()
        assert same(whole, resumed)


def test_what_does_not_fit_is_named_and_nothing_changes(made, tmp_path):
    first, path = begun(made, "epie"), tmp_path / "state.h5"
    with pytest.raises(Stop):
        first.run(stopped_at(2))
    first.save(path)
    scan, probe = made.scan, made.probe
    amplitudes = scan.amplitudes.clone()
    amplitudes[3, 2, 2] += 1
    moved = scan.positions.clone()
    moved[4, 0] += 0.25
    others = {
        "amplitudes": ScanFile(type(scan)(amplitudes, scan.positions), probe),
        "weight": ScanFile(type(scan)(scan.amplitudes, scan.positions, torch.ones(16, 16)), probe),
        "background": ScanFile(type(scan)(scan.amplitudes, scan.positions, None, torch.ones(16, 16)), probe),
        "positions": ScanFile(scan.at(moved), probe),
        "probe": ScanFile(scan, probe.roll(1, -1)),
    }
    for name, contents in others.items():
        run = Run(contents, first.recipe)
        with pytest.raises(ValueError, match=f"{name}: expected the same as the run of .*state.h5 began with"):
            run.load(path)
        assert run.sweeps == []
    for name, value in {"alpha": 0.3, "seed": 1, "sweeps": 7, "probe_from": None, "positions": 3, "modes": 2}.items():
        run = begun(made, "epie", **({"engine": "rpie"} if name == "alpha" else {}), **{name: value})
        with pytest.raises(ValueError, match=f"{'engine|alpha' if name == 'alpha' else name}: expected .* got "):
            run.load(path)
    engine = PIE(made.scan, made.probe)
    engine.save(tmp_path / "engine.h5")
    with pytest.raises(ValueError, match="engine.h5: expected the state of a run of sem ptycho reconstruct"):
        begun(made, "epie").load(tmp_path / "engine.h5")
    whole = path.read_bytes()
    path.write_bytes(whole[:-100])
    with pytest.raises(ValueError, match="state.h5: expected a complete file of a run's state"):
        begun(made, "epie").load(path)


def test_limits_may_be_others(made, tmp_path):
    path = tmp_path / "state.h5"
    whole = begun(made, "epie")
    whole.run()
    limited = begun(made, "epie", chi_squared=1e9)
    limited.run()
    assert len(limited.sweeps) == 1 and not limited.ended
    limited.save(path)
    with pytest.raises(ValueError, match=r"the run was at its end: chi\^2 is .*, at most 1e\+09; it goes on where"):
        begun(made, "epie", chi_squared=1e9).load(path)
    resumed = begun(made, "epie", minutes=100.0)
    resumed.load(path)
    resumed.run()
    assert same_bits(resumed.result().object, whole.result().object) and len(resumed.sweeps) == 6


@pytest.fixture(scope="module")
def scan(tmp_path_factory, made):
    path = tmp_path_factory.mktemp("scan") / "scan.h5"
    write_scan(path, made)
    return str(path)


OPTIONS = ("--engine", "raar", "--sweeps", "4", "--then", "ml:5,batch=8", "--chi-squared", "null", "--no-pictures")


def reconstruct(scan, folder, *more):
    return main(["ptycho", "reconstruct", scan, "--output", str(folder), *more])


def stop_by_ctrl_c(scan, folder, sweep, monkeypatch, *more):
    """Reconstruct with Ctrl-C behind a sweep, inside the next one."""
    original, calls = Engine._advance, 0

    def advance(self, seconds):
        nonlocal calls
        calls += 1
        original(self, seconds)
        if calls == sweep + 1:
            signal.raise_signal(signal.SIGINT)

    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with monkeypatch.context() as patched:
            patched.setattr(Engine, "_advance", advance)
            return reconstruct(scan, folder, *more)
    finally:
        signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize("sweep", [2, 4, 6])
def test_ctrl_c_and_resume_are_the_whole_run(scan, tmp_path, monkeypatch, capsys, sweep):
    whole, folder = tmp_path / "whole", tmp_path / "run"
    assert reconstruct(scan, whole, *OPTIONS) == 0
    assert not (whole / "state.h5").exists()
    assert stop_by_ctrl_c(scan, folder, sweep, monkeypatch, *OPTIONS) == 0
    printed = capsys.readouterr().out
    assert f"stopped after sweep {sweep}: Ctrl-C" in printed
    assert f"go on with: sem ptycho reconstruct {scan} --output {folder} --resume" in printed
    assert reconstruct(scan, folder, "--resume", "--no-pictures") == 0
    assert f"going on behind sweep {sweep}" in capsys.readouterr().out
    first, second = (read_result(path / "result.h5") for path in (whole, folder))
    for name in ("object", "probe", "positions"):
        assert same_bits(getattr(first, name), getattr(second, name))
    losses = [{k: v for k, v in found.losses.items() if k != "seconds"} for found in (first, second)]
    assert losses[0] == losses[1] and first.settings == second.settings
    assert {path.name for path in folder.iterdir()} == {"result.h5", "losses.csv", "result.json"}


def test_a_run_that_was_killed_left_what_it_had_kept(scan, tmp_path, monkeypatch, capsys):
    folder = tmp_path / "run"
    monkeypatch.setattr("sem.commands.ptycho.reconstruct._write_numbers", lambda *_: sys.exit(9))
    with pytest.raises(SystemExit):
        reconstruct(scan, folder, *OPTIONS, "--checkpoint-minutes", "1e-9", "--minutes", "1e-9")
    monkeypatch.undo()
    assert {path.name for path in folder.iterdir()} == {"state.h5", "result.h5"}
    assert read_state(folder / "state.h5")["recipe"]["minutes"] == 1e-9
    assert reconstruct(scan, folder, *OPTIONS) == 2
    assert "--overwrite replaces the one there; --resume goes on with it" in capsys.readouterr().err
    assert reconstruct(scan, folder, "--resume", "--no-pictures", "--minutes", "60") == 0
    assert len(read_result(folder / "result.h5").losses["loss"]) == 9


def test_mistakes_about_resuming_get_one_sentence(scan, tmp_path, monkeypatch, capsys):
    folder = tmp_path / "run"
    assert stop_by_ctrl_c(scan, folder, 2, monkeypatch, *OPTIONS, "--axes=+y+x") == 0
    kept = (folder / "state.h5").read_bytes()
    mistakes = {
        ("--sweeps", "9"): "--sweeps: expected 4, as the run of",
        ("--seed", "3"): "--seed: expected 0, as the run of",
        ("--then", "ml:6"): "--then: expected ['ml:5,batch=8'], as the run of",
        ("--axes=-y+x",): "--axes: expected +y+x, as the run of",
        ("--overwrite",): "--resume: expected no --overwrite",
        ("--checkpoint-minutes", "0"): "--checkpoint-minutes: expected a number > 0, got 0",
    }
    for options, words in mistakes.items():
        capsys.readouterr()
        assert reconstruct(scan, folder, "--resume", *options) == 2, options
        said = capsys.readouterr().err
        assert words in said and said.count("\n") == 1, said
        assert (folder / "state.h5").read_bytes() == kept
    assert reconstruct(scan, tmp_path / "nothing", "--resume") == 2
    assert "state.h5, which a run leaves that ended early, found none" in capsys.readouterr().err
    assert not (tmp_path / "nothing").exists()
    own = ("--overwrite", "--start", str(folder / "result.h5"))
    assert reconstruct(scan, folder, *OPTIONS, *own) == 2
    assert "expected another file than the one that this run replaces" in capsys.readouterr().err
    assert reconstruct(scan, folder, *OPTIONS, "--overwrite") == 0
    assert not (folder / "state.h5").exists()


def test_what_breaks_after_the_sweeps_loses_none_of_them(scan, tmp_path, monkeypatch, capsys):
    def broken(*unused):
        raise RuntimeError("no figures today")

    folder = tmp_path / "run"
    monkeypatch.setattr("sem.ptycho.comparison.scores_beside", broken)
    assert reconstruct(scan, folder, *OPTIONS) == 1
    assert capsys.readouterr().err == "sem: no figures today\n"
    assert len(read_result(folder / "result.h5").losses["loss"]) == 9
