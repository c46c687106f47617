import json

import pytest
import torch

from sem.bench import engines, engines_command, main
from sem.bench.engines import GOALS, SCAN_441, SMALL, Result, Timed, Wanted
from sem.ptycho import PIE, Scores

FOUND = Scores(0.99, 0.01, 0.98, 0.02, 0.9, 0.3, 30.0, 0.1, 0.9, 0.9)


def test_the_problem_is_the_one_that_goals_were_set_for():
    known = SCAN_441.known()
    assert len(known.scan) == 441 and known.scan.side == 64 and known.truth.shape == (186, 186)
    assert float(known.scan.amplitudes.double().square().sum((1, 2)).mean()) == pytest.approx(1e7, rel=1e-3)
    assert torch.equal(known.scan.positions, known.scan.positions.round())
    assert float(known.wrong.abs().square().sum()) == pytest.approx(float(known.probe.abs().square().sum()), rel=1e-5)
    powers = SMALL.known(modes=2).probe.abs().square().sum((1, 2))
    assert float(powers[0] / powers.sum()) == pytest.approx(0.8, rel=1e-5)


def test_the_quickest_of_runs_counts_and_each_begins_anew():
    known = SMALL.known()
    clock, begun = iter([0.0, 3.0, 10.0, 11.0, 20.0, 22.5]), []

    def begin():
        begun.append(PIE(known.scan, known.probe, probe_from=None))
        return begun[-1]

    engine, seconds = Timed(3, lambda: next(clock))(begin, 1)
    assert seconds == 1.0 and len(begun) == 3 and engine is begun[-1] and len(engine.state.reports) == 1
    assert torch.equal(begun[0].state.object, begun[1].state.object)


@pytest.mark.parametrize(
    ("wanted", "reached"),
    [
        (Wanted(0.99, 1), True),
        (Wanted(0.995, 1), False),
        (Wanted(0.9, 1, phase_ssim=0.985), False),
        (Wanted(0.9, 1, complex_error=0.01), False),
        (Wanted(0.99, 1, phase_ssim=0.98, complex_error=0.02), True),
    ],
)
def test_every_score_is_judged(wanted, reached):
    assert wanted.reached(FOUND) is reached


def test_the_command_prints_and_writes_what_it_found(tmp_path, capsys):
    path = tmp_path / "engines.json"
    assert (
        main(["engines", "--quick", "--repeats", "1", "--only", "known", "--only", "modes", "--json", str(path)]) == 0
    )
    shown, document = capsys.readouterr().out, json.loads(path.read_text())
    lines = document["lines"]
    assert [line["goal"] for line in lines] == ["known probe"] * 9 + ["two modes"] * 6
    assert all(line["reached"] for line in lines[:9]) and "L-BFGS" in shown and "no goal was set" in shown
    assert min(line["scores"]["amp_ssim"] for line in lines[:9]) > 0.995 and all(line["seconds"] > 0 for line in lines)
    # one mode of two is no fit, and is not called one
    one = lines[10]
    assert one["engine"] == "LSQ-ML, 1 fitted" and one["chi_squared"] > 20 and one["wanted"].startswith("clearly worse")
    assert document["settings"]["only"] == ["known", "modes"]


@pytest.mark.parametrize(("reached", "in_time", "status"), [(True, False, 0), (False, True, 1)])
def test_a_missed_score_is_a_failure_and_a_slow_machine_is_not(monkeypatch, capsys, reached, in_time, status):
    result = Result("goal", "engine", 3, 9.0, FOUND, 1.0, "all", reached, in_time)
    monkeypatch.setitem(GOALS, "known", lambda problem, timed: iter([result]))
    assert main(["engines", "--only", "known"]) == status
    assert engines_command.verdict(result) in capsys.readouterr().out
    assert engines_command.verdict(result) == ("missed" if not reached else "reached, too slow")


def test_wrong_arguments():
    with pytest.raises(ValueError, match="--only = 'everything': expected one of known, start, photons"):
        main(["engines", "--only", "everything"])
    assert set(engines.GOALS) == {"known", "start", "photons", "modes", "positions"}
