"""Whole sweeps of a toy program: real processes, killed and continued."""

import json
import os
import signal
import threading
from pathlib import Path

import pytest
from toy_sweep import experiment, manifest, quiet, starts, sweep, sweep_at_work, wait_until

from sem.sweeps import Arm, FolderInUse, read_history

PLAIN = Arm("plain")
BETTER = Arm("better", ("toy.level=0.5",))
CRASH = Arm("crash", ("toy.mode=crash",))

SWEEP = """
import sys
from pathlib import Path
from toy_sweep import sweep
from sem.sweeps import Arm, StopLimits
arms = [Arm(name, tuple(overrides.split())) for name, overrides in (arm.split(":") for arm in sys.argv[3:])]
limits = StopLimits(interrupt=float(sys.argv[2]), terminate=0.2)
result = sweep(Path(sys.argv[1]), *arms, jobs=2, limits=limits).run()
print("ended by", result.interrupted_by)
"""


def run(output, *arms, **options):
    return sweep(output, *arms, **options).run(quiet()).summary


def curves(output, arm, seed=0):
    return read_history(folder(output, arm, seed) / "metrics.csv")


def folder(output, arm, seed=0):
    return output / "runs" / arm / f"seed_{seed}"


def alive(pid):
    try:
        os.killpg(pid, 0)
    except ProcessLookupError:
        return False
    return "State:\tZ" not in Path(f"/proc/{pid}/status").read_text() if Path("/proc").exists() else True


@pytest.fixture
def gate(tmp_path, monkeypatch):
    """A file that is not there yet, without which runs stay where they have done three steps."""
    path = tmp_path / "gate"
    monkeypatch.setenv("TOY_GATE", f":{path}")
    return path


def at_work(output, *arms, limit=5.0):
    """A sweep of a process of its own whose runs wait at the gate."""
    names = [arm.partition(":")[0] for arm in arms]
    waiting = lambda: all(len(curves(output, name).get("loss", ())) == 3 for name in names)  # noqa: E731
    return sweep_at_work(SWEEP, output, limit, *arms, ready=waiting)


@pytest.fixture(autouse=True)
def undrawn(monkeypatch):
    """Curves cost half a second: those of the sweep below are drawn, before this, and no others."""
    monkeypatch.setattr("sem.sweeps.summary.plot_curves", lambda arms, target: False)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A sweep of three arms, one of which cannot be finished, by three seeds; its folder and summary."""
    output = tmp_path_factory.mktemp("sweep")
    summary = run(output, PLAIN, BETTER, CRASH, seeds=(0, 1, 2), jobs=2)
    return output, summary


def test_one_failed_run_does_not_stop_the_rest(finished):
    output, summary = finished
    assert [(row.arm, row.finished) for row in summary.rows] == [("plain", 3), ("better", 3), ("crash", 0)]
    failed = manifest(output, "crash", 2)
    assert (failed["state"], failed["reason"]) == ("failed", "it ended with status 1")
    assert failed["log"][0] == "crash at level 1.0, threads 1"
    assert failed["log"][-1] == "RuntimeError: the toy broke"


def test_a_run_leaves_what_was_measured(finished):
    output, summary = finished
    done = summary.results[1][2]
    assert (done.steps, done.seconds, done.collapsed) == (8, 4.0, False)  # the table's clock, not the processes'
    assert done.figures == {"error": 0.5625 + 0.02, "score": -0.5625 - 0.02, "floor": 10.0}
    assert (done.learning_rate, done.gradient_norm) == (0.1 / 8, pytest.approx((1 / 4 + 1 / 5) / 2))
    assert len(done.loss) == 8 and len(done.validation) == 4


def test_summary_says_what_is_decided(finished):
    output, summary = finished
    text = (output / "summary.md").read_text()
    assert text.startswith("# Sweep of 3 arms: 6 of 9 runs are finished\n")
    for expected in (
        "Budget of a run: 8 steps. Seeds 0, 1, 2; 2 runs at once, 1 OpenMP thread each.",
        "| plain | 3/3 | 8 | 1.635 (1.625 to 1.645) | 1.635 (1.625 to 1.645) | 1.135 (1.125 to 1.145) |",
        "| crash | 0/3 | – |",
        "- better is better than plain in test error: the worst of 3 seeds, 0.5825, beats the best, 1.125",
        "- better is better than plain in score: the worst of 3 seeds, -0.5825, beats the best, -1.125",
        "- collapse: not decided by 3 seeds: plain and better",
        "- test error: not decided, seed 0 of crash failed: plain and crash; better and crash",
        "crash seed 1: it ended with status 1",
        "RuntimeError: the toy broke",
        "![Training losses (thin) and validation losses (thick) of all seeds](curves.png)",
        "toy.level=0.5",
    ):
        assert expected in text
    assert "> **Warning:** equal steps, not equal seconds: a median of 4 for better, 8 for plain" in text
    assert (output / "curves.png").read_bytes().startswith(b"\x89PNG")
    content = json.loads((output / "summary.json").read_text())
    assert [verdict["kind"] for verdict in content["verdicts"]].count("better") == 2
    assert content["floors"]["error"]["median"] == 10.0
    assert len(content["runs"]) == 9 and len(content["commands"]) == 9


def test_what_is_done_is_not_run_again(finished):
    output, before = finished
    assert run(output, PLAIN, BETTER, CRASH, seeds=(0, 1, 2)).to_mapping() == {**before.to_mapping()}
    assert starts(output, "plain") == [0] and starts(output, "crash") == [0]


def test_more_arms_and_seeds_go_on(tmp_path):
    run(tmp_path, PLAIN)
    summary = run(tmp_path, PLAIN, BETTER, seeds=(0, 1))
    assert summary.finished == 4 and starts(tmp_path, "plain") == [0]


def test_a_moved_sweep_is_the_same_one(tmp_path):
    run(tmp_path / "here", PLAIN)
    (tmp_path / "here").rename(tmp_path / "there")
    run(tmp_path / "there", PLAIN)
    assert starts(tmp_path / "there", "plain") == [0]


def test_failed_runs_are_tried_again_when_asked_to(tmp_path):
    arm = Arm("shaky", ("toy.mode=crash_once",))
    assert run(tmp_path, arm).finished == 0
    assert run(tmp_path, arm).finished == 0
    assert starts(tmp_path, "shaky") == [0]
    summary = run(tmp_path, arm, retry_failed=True)
    assert (summary.finished, summary.failed) == (1, [])
    assert starts(tmp_path, "shaky") == [0, 3]
    record = manifest(tmp_path, "shaky")
    assert (record["attempts"], record["reason"], record["log"]) == (2, "", [])


def test_a_run_without_its_figures_has_failed(tmp_path):
    run(tmp_path, Arm("silent", ("toy.mode=silent",)))
    record = manifest(tmp_path, "silent")
    assert record["state"] == "failed" and "it ended without its figures" in record["reason"]


def test_a_command_that_is_not_there_has_failed(tmp_path):
    def command(arm, seed, folder):
        return [str(tmp_path / "nothing"), str(folder)]

    summary = run(tmp_path / "sweep", PLAIN, BETTER, experiment=experiment(command=command))
    assert [failed.arm for failed in summary.failed] == ["plain", "better"]
    assert "it could not be started" in summary.failed[0].reason


def test_figures_that_were_damaged_later_are_no_figures(tmp_path):
    run(tmp_path, PLAIN, BETTER)
    (folder(tmp_path, "plain") / "final.json").write_text("{")
    summary = run(tmp_path, PLAIN, BETTER)
    assert [failed.arm for failed in summary.failed] == ["plain"]
    assert "expected figures in JSON" in summary.failed[0].reason


def test_the_same_run_is_in_the_first_line(tmp_path):
    arms = PLAIN, Arm("ignored", ("toy.ignored=1",)), BETTER
    summary = run(tmp_path, *arms, seeds=(0, 1, 2), jobs=2)
    first = (tmp_path / "summary.md").read_text().splitlines()[0]
    assert first.startswith("**Same run: plain and ignored agree in every digit of their loss curves (seeds 0, 1, 2);")
    assert first.endswith("neither is ranked against the other.**")
    assert summary.lines()[0].startswith("same run: plain and ignored")
    kinds = {verdict.arms: verdict.kind for verdict in summary.verdicts if verdict.question == "test error"}
    assert kinds == {
        ("plain", "ignored"): "same",
        ("better", "plain"): "better",
        ("better", "ignored"): "better",
    }


def test_collapses_are_counted_and_judged(tmp_path):
    arms = PLAIN, Arm("weak", ("toy.collapse=0,2", "toy.level=2"))
    run(tmp_path, *arms, seeds=(0, 1, 2), jobs=3)
    text = (tmp_path / "summary.md").read_text()
    assert "| 0/3 |" in text and "| 2/3 |" in text
    assert "- plain prevents collapse, weak does not: 0/3 against 2/3 collapsed" in text


def test_a_sweep_that_was_killed_goes_on(tmp_path, gate):
    """Its run dies with it; the next sweep continues it, to the very curve of an undisturbed one."""
    with at_work(tmp_path / "killed", "plain:") as process:
        process.kill()
        os.killpg(manifest(tmp_path / "killed", "plain")["pid"], signal.SIGKILL)
        process.wait()
    assert manifest(tmp_path / "killed", "plain")["state"] == "running"
    gate.touch()
    assert run(tmp_path / "killed", PLAIN).finished == 1
    assert starts(tmp_path / "killed", "plain") == [0, 3]
    run(tmp_path / "whole", PLAIN)
    assert curves(tmp_path / "killed", "plain") == curves(tmp_path / "whole", "plain")


def test_a_run_that_a_killed_sweep_left_at_work_is_found(tmp_path, gate):
    with at_work(tmp_path, "plain:") as process:
        process.kill()
        process.wait()
        pid = manifest(tmp_path, "plain")["pid"]
        assert alive(pid)
        opening = threading.Timer(0.5, gate.touch)
        opening.start()
        assert run(tmp_path, PLAIN).finished == 1
        opening.join()
    assert starts(tmp_path, "plain") == [0] and not alive(pid)


def test_a_run_left_at_work_that_does_not_end_well_is_begun_again(tmp_path, gate):
    with at_work(tmp_path, "plain:") as process:
        process.kill()
        process.wait()
        pid = manifest(tmp_path, "plain")["pid"]
        ending = threading.Timer(0.5, lambda: (gate.touch(), os.killpg(pid, signal.SIGKILL)))
        os.killpg(pid, signal.SIGSTOP)  # so that it cannot pass the gate first
        ending.start()
        assert run(tmp_path, PLAIN).finished == 1
        ending.join()
    assert starts(tmp_path, "plain") == [0, 3] and manifest(tmp_path, "plain")["attempts"] == 2


def test_a_run_that_ended_unseen_is_found(tmp_path, gate):
    with at_work(tmp_path, "plain:") as process:
        process.kill()
        process.wait()
        gate.touch()
        wait_until((folder(tmp_path, "plain") / "final.json").exists)
        wait_until(lambda: not alive(manifest(tmp_path, "plain")["pid"]))
    assert manifest(tmp_path, "plain")["state"] == "running"
    assert run(tmp_path, PLAIN).finished == 1
    assert starts(tmp_path, "plain") == [0] and manifest(tmp_path, "plain")["state"] == "finished"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_the_runs_and_the_next_sweep_goes_on(tmp_path, gate, number):
    with at_work(tmp_path, "plain:", "better:toy.level=0.5") as process:
        pids = [manifest(tmp_path, name)["pid"] for name in ("plain", "better")]
        process.send_signal(number)
        text, _ = process.communicate(timeout=60)
    assert process.returncode == 0 and f"ended by {number.name}" in text
    assert f"{number.name}: asking 2 runs to save and end" in text
    assert not any(map(alive, pids))
    assert [manifest(tmp_path, name)["state"] for name in ("plain", "better")] == ["interrupted"] * 2
    assert (tmp_path / "summary.md").read_text().startswith("# Sweep of 2 arms: 0 of 2 runs are finished")
    gate.touch()
    assert run(tmp_path, PLAIN, BETTER, Arm("more", ("toy.level=2",)), jobs=3).finished == 3
    assert starts(tmp_path, "plain") == starts(tmp_path, "better") == [0, 3] and starts(tmp_path, "more") == [0]


def test_a_run_that_does_not_listen_is_killed(tmp_path, gate):
    with at_work(tmp_path, "deaf:toy.mode=stubborn", limit=0.2) as process:
        pid = manifest(tmp_path, "deaf")["pid"]
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=20)  # the gate keeps it for 30
    assert not alive(pid) and manifest(tmp_path, "deaf")["state"] == "interrupted"


def test_a_second_ctrl_c_does_not_wait(tmp_path, gate):
    with at_work(tmp_path, "deaf:toy.mode=stubborn", limit=60) as process:
        pid = manifest(tmp_path, "deaf")["pid"]
        process.send_signal(signal.SIGINT)
        assert process.stdout is not None
        wait_until(lambda: "asking 1 run to save" in process.stdout.readline())
        process.send_signal(signal.SIGINT)
        text, _ = process.communicate(timeout=20)
    assert "ended by SIGINT" in text and not alive(pid)


def test_two_sweeps_do_not_share_a_folder(tmp_path, gate):
    refusal = "expected a folder in which no other process is at work"
    with at_work(tmp_path, "plain:"), pytest.raises(FolderInUse, match=refusal):
        run(tmp_path, PLAIN)


def test_jobs_run_at_once_and_each_has_its_threads(tmp_path, gate):
    def open_when_both_wait():
        wait_until(lambda: starts(tmp_path, "plain") == starts(tmp_path, "better") == [0], 20)
        gate.touch()

    opening = threading.Thread(target=open_when_both_wait)
    opening.start()
    summary = run(tmp_path, PLAIN, BETTER, jobs=2, threads=3)
    opening.join()
    assert summary.finished == 2 and gate.exists()
    assert "threads 3" in (folder(tmp_path, "plain") / "log.txt").read_text()
    assert "2 runs at once, 3 OpenMP threads each" in summary.markdown()


def test_arms_that_became_others_are_refused(tmp_path):
    run(tmp_path, PLAIN, BETTER)
    got = "got overrides.toy.level = '0.25', was '0.5'"
    with pytest.raises(ValueError, match=f"runs/better/seed_0: expected a run of the same settings, {got}"):
        run(tmp_path, PLAIN, Arm("better", ("toy.level=0.25",)))
    assert starts(tmp_path, "better") == [0]


def test_another_base_configuration_is_refused(tmp_path):
    run(tmp_path, PLAIN)
    other = experiment(settings=lambda arm, seed: {"width": 3, "arm": arm.name, "seed": seed})
    with pytest.raises(ValueError, match="expected the base configuration of the sweep that is there, got .*width = 3"):
        run(tmp_path, PLAIN, experiment=other)


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", "[" * 99999, '{"identity": 3}', json.dumps({"identity": "x", "state": "finished"})]
)
def test_a_damaged_manifest_is_named(tmp_path, text):
    run(tmp_path, PLAIN)
    (folder(tmp_path, "plain") / "manifest.json").write_text(text)
    with pytest.raises(ValueError, match=r"manifest.json: expected the record of a run .*delete the folder"):
        run(tmp_path, PLAIN)


@pytest.mark.parametrize("text", ["", "[]", '{"id": 3}'])
def test_a_folder_of_something_else_is_refused(tmp_path, text):
    (tmp_path / "sweep.json").write_text(text)
    with pytest.raises(ValueError, match="sweep.json: expected what a sweep wrote"):
        run(tmp_path, PLAIN)


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"jobs": 0}, "jobs = 0: expected an integer >= 1"),
        ({"threads": 0}, "threads = 0: expected an integer >= 1"),
        ({"seeds": ()}, r"seeds = \[\]: expected different integers >= 0"),
        ({"seeds": (1, 1)}, r"seeds = \[1, 1\]: expected different integers"),
        ({"seeds": (-1,)}, r"seeds = \[-1\]"),
    ],
)
def test_impossible_sweeps(tmp_path, options, complaint):
    with pytest.raises(ValueError, match=complaint):
        sweep(tmp_path, PLAIN, **options)
    with pytest.raises(ValueError, match="arms: expected at least one"):
        sweep(tmp_path)
    with pytest.raises(ValueError, match="arm b: expected other settings than those of arm a"):
        sweep(tmp_path, Arm("a"), Arm("b"))


def test_the_table_is_current_while_it_runs(tmp_path, monkeypatch):
    monkeypatch.setattr("sem.sweeps.sweep._SECONDS_BETWEEN_TABLES", 0.0)
    written = []
    monkeypatch.setattr("sem.sweeps.summary.Summary.write", lambda self, output, **how: written.append(self.finished))
    run(tmp_path, PLAIN, BETTER)
    assert written == [1, 2, 2]
