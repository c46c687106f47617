"""Whole sweeps of a toy program: real processes, killed and continued."""

import contextlib
import json
import os
import signal
import time
from pathlib import Path

import pytest
from processes import start
from toy_sweep import experiment, manifest, quiet, starts, sweep

from sem.sweeps import Arm, FolderInUse, read_history

PLAIN = Arm("plain")
SLOW = Arm("slow", ("toy.seconds=0.1",))
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


def wait_until(condition, seconds=20.0):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)


def alive(pid):
    try:
        os.killpg(pid, 0)
    except ProcessLookupError:
        return False
    return "State:\tZ" not in Path(f"/proc/{pid}/status").read_text() if Path("/proc").exists() else True


@contextlib.contextmanager
def sweep_at_work(output, *arms, limit=5.0, steps=2):
    """A sweep in a process of its own, each of whose runs has done some steps."""
    process = start(SWEEP, str(output), str(limit), *arms)
    names = [arm.partition(":")[0] for arm in arms]
    try:
        wait_until(lambda: all(len(curves(output, name).get("loss", ())) >= steps for name in names))
        yield process
    finally:
        process.kill()
        process.communicate()
        for name in names:
            with contextlib.suppress(ProcessLookupError, TypeError):
                os.killpg(manifest(output, name)["pid"], signal.SIGKILL)


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


def test_a_sweep_that_was_killed_goes_on(tmp_path):
    """Its run dies with it; the next sweep continues it, to the very curve of an undisturbed one."""
    with sweep_at_work(tmp_path / "killed", "slow:toy.seconds=0.1") as process:
        process.kill()
        os.killpg(manifest(tmp_path / "killed", "slow")["pid"], signal.SIGKILL)
        process.wait()
    assert manifest(tmp_path / "killed", "slow")["state"] == "running"
    summary = run(tmp_path / "killed", SLOW)
    assert summary.finished == 1
    first, second = starts(tmp_path / "killed", "slow")
    assert first == 0 and second >= 2
    run(tmp_path / "whole", Arm("slow", ("toy.seconds=0.0",)))
    assert curves(tmp_path / "killed", "slow") == curves(tmp_path / "whole", "slow")


def test_a_run_that_a_killed_sweep_left_at_work_is_found(tmp_path):
    with sweep_at_work(tmp_path, "slow:toy.seconds=0.1") as process:
        process.kill()
        process.wait()
        pid = manifest(tmp_path, "slow")["pid"]
        assert alive(pid)
        summary = run(tmp_path, SLOW)
    assert summary.finished == 1 and starts(tmp_path, "slow") == [0]
    assert not alive(pid)


def test_a_run_that_ended_unseen_is_found(tmp_path):
    with sweep_at_work(tmp_path, "slow:toy.seconds=0.1") as process:
        process.kill()
        process.wait()
        wait_until((folder(tmp_path, "slow") / "final.json").exists)
        wait_until(lambda: not alive(manifest(tmp_path, "slow")["pid"]))
    assert manifest(tmp_path, "slow")["state"] == "running"
    assert run(tmp_path, SLOW).finished == 1
    assert starts(tmp_path, "slow") == [0] and manifest(tmp_path, "slow")["state"] == "finished"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_the_runs_and_the_next_sweep_goes_on(tmp_path, number):
    arms = "a:toy.seconds=0.1", "b:toy.seconds=0.1 toy.level=2", "c:toy.level=3"
    with sweep_at_work(tmp_path, *arms[:2]) as process:
        pids = [manifest(tmp_path, name)["pid"] for name in "ab"]
        process.send_signal(number)
        text, _ = process.communicate(timeout=20)
    assert process.returncode == 0 and f"ended by {number.name}" in text
    assert f"{number.name}: asking 2 runs to save and end" in text
    assert not any(map(alive, pids))
    assert [manifest(tmp_path, name)["state"] for name in "ab"] == ["interrupted"] * 2
    assert (tmp_path / "summary.md").read_text().startswith("# Sweep of 2 arms: 0 of 2 runs are finished")
    summary = run(tmp_path, *(Arm(arm[0], tuple(arm[2:].split())) for arm in arms), jobs=3)
    assert summary.finished == 3 and starts(tmp_path, "a")[1] >= 2


def test_a_run_that_does_not_listen_is_killed(tmp_path):
    with sweep_at_work(tmp_path, "deaf:toy.mode=stubborn toy.seconds=5", limit=0.2, steps=0) as process:
        wait_until(lambda: starts(tmp_path, "deaf") == [0])
        pid = manifest(tmp_path, "deaf")["pid"]
        process.send_signal(signal.SIGINT)
        began = time.monotonic()
        process.communicate(timeout=20)
    assert time.monotonic() - began < 4 and not alive(pid)
    assert manifest(tmp_path, "deaf")["state"] == "interrupted"


def test_a_second_ctrl_c_does_not_wait(tmp_path):
    with sweep_at_work(tmp_path, "deaf:toy.mode=stubborn toy.seconds=30", limit=60, steps=0) as process:
        wait_until(lambda: starts(tmp_path, "deaf") == [0])
        pid = manifest(tmp_path, "deaf")["pid"]
        process.send_signal(signal.SIGINT)
        time.sleep(0.5)
        process.send_signal(signal.SIGINT)
        text, _ = process.communicate(timeout=20)
    assert "ended by SIGINT" in text and not alive(pid)


def test_two_sweeps_do_not_share_a_folder(tmp_path):
    with (
        sweep_at_work(tmp_path, "slow:toy.seconds=0.1"),
        pytest.raises(FolderInUse, match="expected a folder in which no other process is at work"),
    ):
        run(tmp_path, SLOW)


def test_jobs_run_at_once_and_each_has_its_threads(tmp_path):
    began = time.monotonic()
    summary = run(tmp_path, SLOW, Arm("slower", ("toy.seconds=0.12",)), jobs=2, threads=3)
    assert summary.finished == 2 and time.monotonic() - began < 1.9  # one after the other: 1.76 s and two starts
    assert "threads 3" in (folder(tmp_path, "slow") / "log.txt").read_text()
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
