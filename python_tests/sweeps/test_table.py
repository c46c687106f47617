import math
from dataclasses import replace

import pytest
from toy_sweep import experiment

from sem.sweeps import Budget, RunResult
from sem.sweeps.results import last_row, read_final, read_history
from sem.sweeps.table import Spread, arm_row, budget_warnings, floors, markdown_table


def run(arm, seed, error=1.0, **changes):
    figures = {"error": error, "score": -error, "floor": 10.0}
    base = RunResult(arm, seed, "finished", figures, False, steps=8, seconds=60.0)
    return replace(base, **changes)


def warnings(budget, **spent):
    runs = [run(arm, 0, steps=steps, seconds=seconds) for arm, (steps, seconds) in spent.items()]
    return budget_warnings([arm_row([one], experiment()) for one in runs], budget)


def test_median_and_range_over_the_seeds():
    runs = [
        run("a", seed, error, validation=((1.0, error + 1), (2.0, error))) for seed, error in enumerate((3.0, 1.0, 2.0))
    ]
    runs.append(run("a", 3, state="failed", figures={}))
    row = arm_row(runs, experiment())
    assert (row.planned, row.finished, row.collapsed) == (4, 3, 0)
    assert row.figures["error"] == row.final_validation == Spread(2.0, 1.0, 3.0)
    assert row.seconds == Spread(60.0, 60.0, 60.0)


def test_best_and_final_validation_loss_are_two_things():
    (best, final) = (0.024, 0.198)
    one = run("a", 0, validation=((1.0, 0.5), (2.0, best), (3.0, math.nan), (4.0, final)))
    row = arm_row([one], experiment())
    assert (row.best_validation.median, row.final_validation.median) == (best, final)


def test_spread_of_what_is_not_a_number():
    spread = Spread.of([1.0, math.nan, 3.0])
    assert (spread.low, spread.median) == (1.0, 3.0) and math.isnan(spread.high)
    assert Spread.of([None]) is None


def test_equal_steps_and_seconds_need_no_warning():
    assert warnings(Budget(steps=8), a=(8, 100.0), b=(8, 109.0)) == []
    assert warnings(Budget(steps=99, seconds=100), a=(80, 100.0), b=(87, 100.5)) == []


def test_unequal_seconds_of_a_sweep_by_steps():
    (warning,) = warnings(Budget(steps=8), a=(8, 100.0), b=(8, 112.0), c=(8, 105.0))
    assert warning == "equal steps, not equal seconds: a median of 100 for a, 112 for b, which is 12 % more"


def test_unequal_steps_of_a_sweep_by_time():
    (warning,) = warnings(Budget(steps=999, seconds=100), a=(80, 100.0), b=(120, 100.5))
    assert warning == "equal seconds, not equal steps: a median of 80 for a, 120 for b, which is 50 % more"


def test_a_budget_that_was_not_kept():
    assert warnings(Budget(steps=8), a=(8, 100.0), b=(4, 100.0)) == [
        "not equal steps: a median of 4 for b, 8 for a, which is 100 % more"
    ]
    (warning,) = warnings(Budget(steps=100, seconds=100), a=(100, 60.0), b=(100, 100.0))
    assert warning.startswith("not equal seconds")


@pytest.mark.parametrize(("steps", "seconds"), [(0, None), (5, 0.0), (5, math.nan)])
def test_an_impossible_budget(steps, seconds):
    with pytest.raises(ValueError, match="expected"):
        Budget(steps=steps, seconds=seconds)


def test_markdown_has_a_row_per_arm_and_one_of_floors():
    rows = [
        arm_row([run("a", 0), run("a", 1, 3.0)], experiment()),
        arm_row([run("b", 0, state="waiting")], experiment()),
    ]
    lines = markdown_table(rows, experiment(), floors([run("a", 0)], experiment())).splitlines()
    assert len(lines) == 5 and len({line.count("|") for line in lines}) == 1
    assert lines[2].startswith("| a | 2/2 | 8 | – | – | 2 (1 to 3) | -2 (-3 to -1) | 0/2 |")
    assert lines[3].startswith("| b | 0/1 | – ")
    assert lines[4].startswith("| *floor* |  |  |  |  | 10 |  |")


@pytest.mark.parametrize(
    "text",
    ["", "[]", "{", "3", '{"error": 1}', '{"error": "1", "score": 1, "floor": 1, "collapsed": false}', "[" * 100000]
    + ['{"error": 1, "score": true, "floor": 1, "collapsed": false}']
    + ['{"error": 1, "score": 1, "floor": 1, "collapsed": 0}', '{"error": 1, "score": 1, "floor": 1}', "\ud800"],
)
def test_a_final_file_that_is_none(tmp_path, text):
    path = tmp_path / "final.json"
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    with pytest.raises(ValueError, match="final.json: expected"):
        read_final(path, experiment())


def test_a_final_file_with_numbers_of_all_kinds(tmp_path):
    path = tmp_path / "final.json"
    path.write_text(f'{{"error": NaN, "score": 1{"0" * 400}, "floor": -Infinity, "collapsed": true, "more": []}}')
    figures, collapsed = read_final(path, experiment())
    assert math.isnan(figures["error"]) and figures["score"] == math.inf and collapsed is True


def test_a_table_that_grows(tmp_path):
    path = tmp_path / "metrics.csv"
    assert read_history(path) == last_row(path) == {}
    path.write_text("step,loss,val_loss\n")
    assert read_history(path) == last_row(path) == {}
    path.write_text("step,loss,val_loss\n1,3.0,\n2,2.5,0.5\n3,2")
    assert read_history(path) == {"loss": ((1.0, 3.0), (2.0, 2.5)), "val_loss": ((2.0, 0.5),)}
    assert last_row(path) == {"step": 2.0, "loss": 2.5, "val_loss": 0.5}
    path.write_text("step,loss\n" + "".join(f"{step},{1 / step!r}\n" for step in range(1, 5000)))
    assert last_row(path) == {"step": 4999.0, "loss": 1 / 4999}


@pytest.mark.parametrize(
    "text", ["a,b\n1,2\n", "step,loss\n1,x\n", "step,loss\nx,1\n", "step\n1,2\n", "step,loss\n\0\n"]
)
def test_a_table_that_is_none(tmp_path, text):
    path = tmp_path / "metrics.csv"
    path.write_text(text)
    with pytest.raises(ValueError, match="expected a table of metrics"):
        read_history(path)
