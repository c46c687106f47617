import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import pytest
from fake_hub import TOKEN
from small_model import SMALL_MODEL
from taught_runs import RUN, same_bits
from toy import RecordingDisplay

from sem.config import SEMConfig
from sem.hub.__main__ import main
from sem.hub.keeper import Keeper, Pace
from sem.hub.mirror import RunMirror
from sem.huggingface import HubError
from sem.training.run_folder import open_checkpoint
from sem.training.trainer import SEMTrainer

ROOT = Path(__file__).parents[2]
REPO = "me/waves"
QUICK = Pace(poll=0.02, retry=0.02, last_attempts=2)


def write(folder, **files):
    for name, text in files.items():
        path = folder / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def run_folder(tmp_path, *steps):
    folder = tmp_path / "run"
    write(folder, metrics="step\n", tensorboard__events="e")
    for step in steps:
        (folder / "checkpoints").mkdir(exist_ok=True)
        (folder / f"checkpoints/step_{step:08d}.pt").write_text(f"weights {step}")
    return folder


def training(tmp_path, text):
    """A command that runs ``text`` with ``run`` for the run's folder."""
    script = tmp_path / "training.py"
    prelude = f"import pathlib, signal, sys, time\nrun = pathlib.Path({str(tmp_path / 'run')!r})\n"
    script.write_text(prelude + textwrap.dedent(text))
    return [sys.executable, str(script)]


def test_upload_mirrors_the_folder_and_leaves_what_is_not_the_runs(hub, tmp_path):
    folder = run_folder(tmp_path, 1, 2)
    write(folder, **{".cache__x": "x", "checkpoints__step_3.pt.writing": "half", "checkpoints__a.pt.damaged": "bad"})
    hub.repos[REPO] = {"README.md": b"mine", "checkpoints/step_00000000.pt": b"old", "tensorboard/old": b"old"}
    RunMirror(folder, REPO).upload()
    assert hub.repos[REPO] == {
        "README.md": b"mine",
        "metrics": b"step\n",
        "tensorboard/events": b"e",
        "checkpoints/step_00000001.pt": b"weights 1",
        "checkpoints/step_00000002.pt": b"weights 2",
    }
    assert hub.commits == 1
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".upload")] == []


def test_restore_makes_a_private_repository_once_and_fetches_a_run_into_an_empty_folder(hub, tmp_path):
    mirror = RunMirror(tmp_path / "run", REPO)
    assert not mirror.restore() and hub.private == {REPO: True}
    assert not mirror.restore()
    hub.repos[REPO] = {"config.yaml": b"a: 1", "checkpoints/step_00000009.pt": b"weights"}
    assert mirror.restore()
    assert (tmp_path / "run/config.yaml").read_text() == "a: 1"
    assert mirror.newest() == "step_00000009"
    (tmp_path / "run/checkpoints/step_00000009.pt").write_text("newer here")
    assert not mirror.restore()
    assert (tmp_path / "run/checkpoints/step_00000009.pt").read_text() == "newer here"


def test_every_checkpoint_is_uploaded_while_training_goes_on(hub, tmp_path):
    text = """
        (run / "checkpoints").mkdir(parents=True)
        (run / "checkpoints/step_00000001.pt").write_text("weights")
        while not (run / "seen").exists():
            time.sleep(0.01)
        (run / "metrics.csv").write_text("done")
        sys.exit(3)
    """

    def confirm_upload():
        while "checkpoints/step_00000001.pt" not in hub.repos.get(REPO, {}):
            time.sleep(0.01)
        (tmp_path / "run/seen").write_text("")

    threading.Thread(target=confirm_upload, daemon=True).start()
    assert Keeper(RunMirror(tmp_path / "run", REPO), QUICK).run(training(tmp_path, text)) == 3
    assert hub.repos[REPO]["metrics.csv"] == b"done"


def test_failing_upload_is_reported_and_tried_again_and_does_not_end_the_training(hub, tmp_path, capfd):
    text = """
        (run / "checkpoints").mkdir(parents=True)
        (run / "checkpoints/step_00000001.pt").write_text("weights")
        while not (run / "failed").exists():
            time.sleep(0.01)
    """
    hub.failures["/commit/"] = (403, "quota")

    def mend():
        while sum("/commit/" in request for request in hub.requests) < 2:
            time.sleep(0.01)
        hub.failures.clear()
        (tmp_path / "run/failed").write_text("")

    threading.Thread(target=mend, daemon=True).start()
    assert Keeper(RunMirror(tmp_path / "run", REPO), QUICK).run(training(tmp_path, text)) == 0
    errors = capfd.readouterr().err
    assert "the run cannot be uploaded: the hub answered 403 (quota)" in errors and "training goes on" in errors
    assert "checkpoints/step_00000001.pt" in hub.repos[REPO]


def test_a_checkpoint_that_was_there_before_anybody_looked_is_uploaded(hub, tmp_path, monkeypatch):
    text = """
        (run / "checkpoints").mkdir(parents=True)
        (run / "checkpoints/step_00000001.pt").write_text("weights")
        end = time.monotonic() + 20
        while not (run / "seen").exists():
            time.sleep(0.01)
            if time.monotonic() > end:
                raise SystemExit(3)
    """
    saved, start = tmp_path / "run/checkpoints/step_00000001.pt", subprocess.Popen

    def slow_start(*arguments, **settings):
        child = start(*arguments, **settings)
        while not saved.exists():
            time.sleep(0.01)
        return child

    def look():
        while "checkpoints/step_00000001.pt" not in hub.repos.get(REPO, ()):
            time.sleep(0.01)
        (tmp_path / "run/seen").write_text("")

    monkeypatch.setattr("sem.hub.keeper.subprocess.Popen", slow_start)
    threading.Thread(target=look, daemon=True).start()
    assert Keeper(RunMirror(tmp_path / "run", REPO), QUICK).run(training(tmp_path, text)) == 0


def test_a_command_that_trains_elsewhere_is_told_and_an_error(hub, tmp_path, capfd):
    pace = Pace(poll=0.02, patience=0.05)
    keeper = Keeper(RunMirror(tmp_path / "run", REPO), pace)
    assert keeper.run(training(tmp_path, "time.sleep(0.5)")) == 1
    early, late = [line for line in capfd.readouterr().err.splitlines() if "nothing is kept" in line]
    assert early.startswith("sem.hub: nothing is kept yet: there is no folder ") and late.startswith(
        "sem.hub: nothing is"
    )
    assert early.endswith("is it the command's training.output_dir?") and hub.commits == 0
    assert Keeper(keeper.mirror, QUICK).run(training(tmp_path, "sys.exit(3)")) == 3
    assert "nothing is kept" not in capfd.readouterr().err


def test_a_run_goes_on_exactly_elsewhere_from_the_checkpoints_that_the_hub_keeps(hub, tmp_path):
    text = tmp_path / "text.txt"
    text.write_text("the wave returns to the shore. " * 200)
    settings = (
        *SMALL_MODEL,
        *RUN,
        f"data.paths=[{text}]",
        "training.checkpoint_every=2",
        "training.keep_checkpoints=2",
    )

    def kept(place, steps):
        """The newest parameters behind a training in ``place`` that the hub keeps."""
        own = (f"training.output_dir={tmp_path / place}", f"training.max_steps={steps}")
        SEMConfig().with_overrides(*settings, *own).save(tmp_path / "config.yaml")
        command = [sys.executable, "-m", "sem", "train", "--resume", "auto", "--config", str(tmp_path / "config.yaml")]
        assert Keeper(RunMirror(tmp_path / place, REPO), QUICK).run(command) == 0
        return open_checkpoint(tmp_path / place)[1]["model"]

    kept("here", 5)
    continued = kept("there", 9)
    names = sorted(name for name in hub.repos[REPO] if name.startswith("checkpoints/"))
    assert names == ["checkpoints/step_00000008.pt", "checkpoints/step_00000009.pt"]
    straight = SEMConfig().with_overrides(*settings, f"training.output_dir={tmp_path / 'run'}", "training.max_steps=9")
    SEMTrainer(straight).fit(display=RecordingDisplay())
    assert same_bits(continued, open_checkpoint(tmp_path / "run")[1]["model"])


def test_a_last_upload_that_fails_is_an_error(hub, tmp_path, capfd):
    hub.failures["/commit/"] = (403, "quota")
    command = training(tmp_path, "run.mkdir(); (run / 'final.json').write_text('{}')")
    assert Keeper(RunMirror(tmp_path / "run", REPO), QUICK).run(command) == 1
    assert "gave up after 2 attempts" in capfd.readouterr().err


def test_without_a_repository_nothing_is_trained(hub, tmp_path):
    hub.failures["repos/create"] = (403, "read-only token")
    with pytest.raises(HubError, match="read-only token"):
        Keeper(RunMirror(tmp_path / "run", REPO), QUICK).run(training(tmp_path, "run.mkdir()"))
    assert not (tmp_path / "run").exists()
    assert main([REPO, str(tmp_path / "run"), "--", "true"]) == 1


def test_sigterm_reaches_the_training_whose_last_state_is_uploaded(hub, tmp_path):
    text = """
        def stop(*_):
            (run / "last").write_text("saved")
            sys.exit(0)
        signal.signal(signal.SIGTERM, stop)
        run.mkdir()
        print("ready", flush=True)
        for _ in range(600):
            time.sleep(0.1)  # in short naps: a signal just before a sleep waits for its end
    """
    keep = [sys.executable, "-m", "sem.hub", REPO, str(tmp_path / "run"), "--", *training(tmp_path, text)]
    environment = {**os.environ, "HF_ENDPOINT": hub.url, "HF_TOKEN": TOKEN, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(keep, env=environment, stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    assert process.returncode == 0
    assert hub.repos[REPO]["last"] == b"saved"


def test_a_signal_while_the_command_starts_reaches_it(hub, tmp_path, monkeypatch):
    text = """
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(7))
        run.mkdir()
        for _ in range(600):
            time.sleep(0.1)
    """
    start = subprocess.Popen

    def start_and_be_told_to_stop(*args, **options):
        child = start(*args, **options)
        while not (tmp_path / "run").is_dir():
            time.sleep(0.01)
        signal.raise_signal(signal.SIGTERM)
        return child

    monkeypatch.setattr(subprocess, "Popen", start_and_be_told_to_stop)
    assert Keeper(RunMirror(tmp_path / "run", REPO), QUICK).run(training(tmp_path, text)) == 7
