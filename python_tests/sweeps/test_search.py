import json
import os
import signal
import sys

import pytest
from toy_sweep import experiment, manifest, quiet, starts, sweep, sweep_at_work

from sem.sweeps import Arm, Parameter, Pruning, Search, read_search
from sem.sweeps.trials import open_study

optuna = pytest.importorskip("optuna", reason="pip install 'sem-torch[sweep]'")
EXPERIMENT = experiment()
ERROR, SCORE = EXPERIMENT.figures
LEVEL = Parameter(key="toy.level", kind="float", low=0.1, high=10.0, log=True)
MODE = Parameter(key="toy.mode", kind="categorical", choices=("good", "crash"))

SWEEP = """
import sys
from pathlib import Path
from toy_sweep import experiment, sweep
from sem.sweeps import read_search
search = read_search(sys.argv[2], experiment())
sweep(Path(sys.argv[1]), search=search, trials=3, seeds=(0, 1)).run()
"""


@pytest.fixture(autouse=True)
def undrawn(monkeypatch):
    monkeypatch.setattr("sem.sweeps.summary.plot_curves", lambda arms, target: False)


def read(tmp_path, text):
    path = tmp_path / "search.yaml"
    path.write_text(text)
    return read_search(path, EXPERIMENT)


def run(output, *parameters, trials=4, search=None, arms=(), **options):
    search = search or Search(ERROR, parameters)
    return sweep(output, *arms, search=search, trials=trials, **options).run(quiet()).summary


def study_of(output):
    return optuna.load_study(study_name="sweep", storage=f"sqlite:///{output / 'search.db'}")


def states(output):
    return [trial.state.name for trial in study_of(output).get_trials()]


def test_a_whole_file(tmp_path):
    text = """
figure: score
sampler: random
seed: 7
pruning: {startup_trials: 2}
parameters:
  toy.level: {kind: float, low: 1.0e-3, high: 1, log: true}
  toy.width: {kind: int, low: 2, high: 8, step: 2}
  toy.mode: {kind: categorical, choices: [good, 3, 0.5, true, null]}
"""
    search = read(tmp_path, text)
    assert (search.figure, search.sampler, search.seed, search.pruning) == (SCORE, "random", 7, Pruning(2, 0))
    assert [parameter.extremes for parameter in search.parameters] == [
        ["toy.level=0.001", "toy.level=1"],
        ["toy.width=2", "toy.width=8"],
        ["toy.mode=good", "toy.mode=3", "toy.mode=0.5", "toy.mode=true", "toy.mode=null"],
    ]


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "parameters: expected a mapping of settings, got None"),
        ("parameters: [toy.level]", "parameters: expected a mapping of settings"),
        ("more: 1\nparameters: {toy.level: {kind: float, low: 1, high: 2}}", "'more': expected one of figure, param"),
        ("parameters: {level: {kind: float, low: 1, high: 2}}", "parameters: expected section.key, got 'level'"),
        ("parameters: {3: {kind: float, low: 1, high: 2}}", "parameters: expected section.key, got 3"),
        ("parameters: {toy.steps: {kind: int, low: 1, high: 2}}", "expected it not to be searched: every arm has"),
        ("parameters: {other.x: {kind: float, low: 1, high: 2}}", "parameters: other.x: unknown key"),
        ("parameters: {toy.level: 3}", "expected a mapping with kind float, int or categorical, got 3"),
        ("parameters: {toy.level: {kind: complex}}", "expected a mapping with kind float, int or categorical"),
        ("parameters: {toy.level: {kind: float, low: 1}}", "expected high, low and perhaps log of kind float"),
        ("parameters: {toy.level: {kind: float, low: 1, high: 2, step: 1}}", "expected high, low and perhaps log"),
        ("parameters: {toy.level: {kind: float, low: 1e-4, high: 2}}", "YAML reads 1e-4 as text; write 1.0e-4"),
        ("parameters: {toy.level: {kind: float, low: .nan, high: 2}}", "low = nan: expected a number"),
        ("parameters: {toy.level: {kind: float, low: 2, high: 2}}", "expected low < high, got 2 and 2"),
        ("parameters: {toy.level: {kind: float, low: 0, high: 2, log: true}}", "low = 0: expected a number > 0 on a"),
        ("parameters: {toy.level: {kind: float, low: 1, high: 2, log: 1}}", "log = 1: expected true or false"),
        ("parameters: {toy.level: {kind: int, low: 1.5, high: 2}}", "low = 1.5: expected an integer"),
        ("parameters: {toy.level: {kind: int, low: true, high: 2}}", "low = True: expected an integer"),
        ("parameters: {toy.level: {kind: int, low: 1, high: 2, step: 0}}", "step = 0: expected an integer >= 1"),
        ("parameters: {toy.level: {kind: int, low: 1, high: 9, step: 2, log: true}}", "step = 2: expected an integer"),
        ("parameters: {toy.level: {kind: categorical, choices: [a]}}", "choices: expected a list of two or more"),
        ("parameters: {toy.level: {kind: categorical, choices: [a, a]}}", "two or more different values"),
        ("parameters: {toy.level: {kind: categorical, choices: [a, [b]]}}", "two or more different values"),
        (
            "figure: loss\nparameters: {toy.level: {kind: int, low: 1, high: 2}}",
            "figure = 'loss': expected one of error",
        ),
        (
            "sampler: best\nparameters: {toy.level: {kind: int, low: 1, high: 2}}",
            "sampler = 'best': expected one of",
        ),
        ("seed: -1\nparameters: {toy.level: {kind: int, low: 1, high: 2}}", "seed = -1: expected an integer >= 0"),
        ("pruning: yes\nparameters: {toy.level: {kind: int, low: 1, high: 2}}", "pruning = True: expected a mapping"),
        (
            "pruning: {x: 1}\nparameters: {toy.level: {kind: int, low: 1, high: 2}}",
            "pruning.x: expected one of",
        ),
        ("pruning: {warmup_steps: 0.5}\nparameters: {toy.a: {kind: int, low: 1, high: 2}}", "warmup_steps = 0.5"),
    ],
)
def test_one_sentence_for_a_mistake(tmp_path, text, complaint):
    with pytest.raises(ValueError) as error:
        read(tmp_path, text)
    (line,) = str(error.value).split("\n")
    assert line.startswith(f"{tmp_path / 'search.yaml'}: ") and complaint in line


def test_trials_are_runs_of_the_sweep(tmp_path):
    summary = run(tmp_path, LEVEL, seeds=(0, 1), arms=[Arm("plain")], jobs=2)
    assert [arm.name for arm in summary.arms] == ["plain", *(f"trial-{number:04d}" for number in range(4))]
    assert summary.finished == 10
    assert manifest(tmp_path, "trial-0002", 1)["state"] == "finished"
    levels = [float(arm.overrides[0].removeprefix("toy.level=")) for arm in summary.arms[1:]]
    assert len(set(levels)) == 4 and all(0.1 <= level <= 10.0 for level in levels)
    best = summary.best
    assert best is not None and best.arm == summary.arms[1 + levels.index(min(levels))]
    assert best.mean == pytest.approx(1.125 * min(levels) + 0.005)  # the mean of the seeds, 0.01 apart
    assert best.spread.high - best.spread.low == pytest.approx(0.01)
    assert study_of(tmp_path).best_value == best.mean
    text = (tmp_path / "summary.md").read_text()
    assert f"## Best trial\n\n{best.arm.name}: {best.arm.overrides[0]}, test error" in text
    assert {verdict.arms for verdict in summary.verdicts} == set()  # trials are not ranked


def test_more_trials_go_on_and_do_not_repeat_the_first(tmp_path):
    run(tmp_path, LEVEL, trials=2)
    before = study_of(tmp_path).get_trials()
    assert run(tmp_path, LEVEL, trials=2).finished == 2
    summary = run(tmp_path, LEVEL, trials=4)
    assert summary.finished == 4
    assert len({arm.overrides for arm in summary.arms}) == 4
    assert [trial.params for trial in study_of(tmp_path).get_trials()[:2]] == [trial.params for trial in before]
    assert starts(tmp_path, "trial-0000") == [0]


def test_values_that_come_again_are_not_run_again(tmp_path):
    summary = run(tmp_path, Parameter(key="toy.level", kind="int", low=1, high=2), trials=6)
    assert len(summary.arms) == 2 and states(tmp_path) == ["COMPLETE"] * 6
    assert {path.name for path in (tmp_path / "runs").iterdir()} == {arm.name for arm in summary.arms}
    assert all(starts(tmp_path, arm.name) == [0] for arm in summary.arms)


def test_a_failed_trial_does_not_stop_the_rest(tmp_path):
    summary = run(tmp_path, MODE, LEVEL, trials=6, seeds=(0, 1))
    modes = [arm.overrides[0] for arm in summary.arms]
    assert {"toy.mode=good", "toy.mode=crash"} == set(modes)
    expected = ["FAIL" if mode.endswith("crash") else "COMPLETE" for mode in modes]
    assert states(tmp_path) == expected
    failed = summary.arms[modes.index("toy.mode=crash")].name
    assert starts(tmp_path, failed, 0) == [0] and starts(tmp_path, failed, 1) == []  # its other seed is spared
    run(tmp_path, MODE, LEVEL, trials=6, seeds=(0, 1))
    assert starts(tmp_path, failed) == [0]
    run(tmp_path, MODE, LEVEL, trials=6, seeds=(0, 1), retry_failed=True)
    assert len(starts(tmp_path, failed)) == 2
    assert len({arm.name for arm in summary.arms}) == 6


def test_values_that_do_not_go_together_fail_alone(tmp_path):
    def settings(arm, seed):
        if len(arm.overrides) == 2 and arm.overrides[0] == "toy.a=1":
            raise ValueError("toy.a and toy.b: expected others")
        return {"overrides": list(arm.overrides), "seed": seed}

    parameters = [Parameter(key=f"toy.{name}", kind="int", low=1, high=2) for name in "ab"]
    summary = run(tmp_path, *parameters, trials=6, experiment=experiment(settings=settings))
    assert {arm.overrides[0] for arm in summary.arms} == {"toy.a=2"} and summary.failed == []
    assert set(states(tmp_path)) == {"COMPLETE", "FAIL"}


def test_an_interrupted_search_goes_on_in_the_same_folders(tmp_path, monkeypatch):
    file, gate, output = tmp_path / "search.yaml", tmp_path / "gate", tmp_path / "sweep"
    file.write_text("parameters: {toy.level: {kind: float, low: 0.5, high: 2}}")
    monkeypatch.setenv("TOY_GATE", f"trial-0001:{gate}")
    with sweep_at_work(SWEEP, output, file, ready=lambda: starts(output, "trial-0001") == [0]) as process:
        process.kill()
        process.wait()
        os.killpg(manifest(output, "trial-0001")["pid"], signal.SIGKILL)
    gate.touch()
    interrupted = study_of(output).get_trials()[1]
    assert interrupted.state.name == "RUNNING"
    summary = run(output, search=read_search(file, EXPERIMENT), trials=3, seeds=(0, 1))
    assert [arm.name for arm in summary.arms] == ["trial-0000", "trial-0001", "trial-0003"]
    assert summary.finished == 6 and states(output) == ["COMPLETE", "FAIL", "COMPLETE", "COMPLETE"]
    assert study_of(output).get_trials()[2].params == interrupted.params
    assert len(starts(output, "trial-0001")) == 2 and starts(output, "trial-0000") == [0]


def test_an_unpromising_trial_is_given_up(tmp_path, monkeypatch):
    """The third of three trials that are enqueued is the worst; its first seed is stopped, its second not begun."""
    monkeypatch.setenv("TOY_GATE", f"trial-0002:{tmp_path / 'gate'}")  # which nobody opens
    search = Search(ERROR, (LEVEL,), pruning=Pruning(startup_trials=2, warmup_steps=1))
    study = open_study(search, (0, 1), tmp_path, None, 1)
    for level in (0.5, 0.6, 9.0):
        study.enqueue_trial({"toy.level": level})
    summary = run(tmp_path, search=search, trials=3, seeds=(0, 1))
    assert states(tmp_path) == ["COMPLETE", "COMPLETE", "PRUNED"]
    record = manifest(tmp_path, "trial-0002")
    assert record["state"] == "pruned"
    assert record["reason"] == "its validation loss was above the median of the earlier trials"
    assert starts(tmp_path, "trial-0002", 1) == [] and summary.failed == []
    assert run(tmp_path, search=search, trials=3, seeds=(0, 1)).finished == 4
    assert starts(tmp_path, "trial-0002") == [0]


def test_another_search_is_refused(tmp_path):
    run(tmp_path, LEVEL, trials=1)
    other = Parameter(key="toy.level", kind="float", low=0.1, high=5.0, log=True)
    with pytest.raises(ValueError, match=r"got parameters.toy.level.high = 5.0, was 10.0"):
        run(tmp_path, other, trials=1)
    with pytest.raises(ValueError, match=r"got seeds = \[0, 1\], was \[0\]"):
        run(tmp_path, LEVEL, trials=1, seeds=(0, 1))


def test_another_storage_and_a_figure_that_should_be_high(tmp_path):
    storage = f"sqlite:///{tmp_path / 'shared.db'}"
    summary = run(tmp_path / "sweep", search=Search(SCORE, (LEVEL,)), trials=3, storage=storage)
    levels = {arm.name: float(arm.overrides[0].partition("=")[2]) for arm in summary.arms}
    assert summary.best is not None and summary.best.arm.name == min(levels, key=levels.__getitem__)
    assert optuna.load_study(study_name="sweep", storage=storage).best_value == summary.best.mean
    assert not (tmp_path / "sweep" / "search.db").exists()


@pytest.mark.parametrize("storage", ["nonsense", "sqlite:////nowhere/there.db", "unknowndb://host/base"])
def test_a_storage_that_cannot_be_used(tmp_path, storage):
    with pytest.raises(ValueError, match="storage: expected a database that Optuna can use"):
        run(tmp_path, LEVEL, trials=1, storage=storage)


def test_a_damaged_storage(tmp_path):
    (tmp_path / "search.db").write_bytes(b"no database" * 100)
    with pytest.raises(ValueError, match="search.db: expected a database that Optuna can use"):
        run(tmp_path, LEVEL, trials=1)


def test_without_optuna(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(ImportError, match=r"a search needs Optuna: pip install 'sem-torch\[sweep\]'"):
        run(tmp_path, LEVEL, trials=1)
    assert json.loads((tmp_path / "sweep.json").read_text())  # and the arms can still be run
    assert sweep(tmp_path, Arm("plain")).run(quiet()).summary.finished == 1
