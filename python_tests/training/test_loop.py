import signal

import pytest
import torch
from processes import start
from toy import HEALTHY, RecordingDisplay, ToyDiagnostics, losses_of, toy_trainer

from sem.config import SEMConfig
from sem.training.checkpoint import CheckpointStore
from sem.training.health import wave_criteria
from sem.training.logging import read_csv
from sem.training.loop import TrainingDiverged


def weights(folder):
    return CheckpointStore(folder / "checkpoints").load_latest()[1]["model"]


@pytest.mark.parametrize("stop", [1, 5, 11])
def test_resumed_run_repeats_the_uninterrupted_one_bit_for_bit(tmp_path, stop):
    whole = losses_of(tmp_path / "whole")
    trainer = toy_trainer(tmp_path / "parts")
    display = RecordingDisplay()
    loop = trainer.build_loop(store=trainer.store, display=display)
    loop.run(max_steps=stop)
    assert 0 < trainer.train_loader.epoch % 1 < 1
    torch.randn(3)
    resumed = losses_of(tmp_path / "parts", resume="auto")
    assert len(whole) == 12
    assert display.losses + resumed == whole
    expected, found = weights(tmp_path / "whole"), weights(tmp_path / "parts")
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_the_run_spans_more_than_an_epoch(tmp_path):
    trainer = toy_trainer(tmp_path)
    trainer.fit(display=RecordingDisplay())
    assert trainer.train_loader.epoch > 1


def test_training_lowers_the_loss(tmp_path):
    losses = losses_of(tmp_path, "training.max_steps=60")
    assert losses[-1] < 0.8 * losses[0]


def test_schedule_sets_the_learning_rate_of_each_step(tmp_path):
    losses_of(tmp_path)
    rates = [row["learning_rate"] for row in read_csv(tmp_path / "metrics.csv")]
    assert rates == pytest.approx([0.005, *[0.01] * 8, 0.00775, 0.0055, 0.00325])


def test_intervals(tmp_path):
    losses_of(tmp_path, "training.log_every=6")
    rows = {row["step"]: row for row in read_csv(tmp_path / "metrics.csv")}
    assert {step for step, row in rows.items() if "val_bits_per_byte" in row} == {5, 10, 12}
    assert {step for step, row in rows.items() if "cg_residual" in row} == {1, 4, 8, 12}
    assert set(rows) == {1, 4, 5, 6, 8, 10, 12}
    assert [path.name for path in CheckpointStore(tmp_path / "checkpoints").paths()] == [
        "step_00000009.pt",
        "step_00000012.pt",
    ]


def test_single_bad_step_is_skipped_and_counted(tmp_path):
    trainer = toy_trainer(tmp_path)
    loss = trainer.model.loss

    def sometimes_nan(*arguments, **options):
        figures = loss(*arguments, **options)
        if trainer.model.calls in (7, 12):
            figures["loss"] = figures["loss"] * float("nan")
        return figures

    trainer.model.loss = sometimes_nan
    display = RecordingDisplay()
    result = trainer.fit(display=display)
    assert result.step == 12
    assert result.figures["skipped_steps"] == 2
    assert [message for message in display.messages if "skipped" in message] == [
        "step 4: skipped, the loss is nan",
        "step 6: skipped, the loss is nan",
    ]
    assert [path.name for path in trainer.store.paths()] == ["step_00000009.pt", "step_00000012.pt"]


def test_repeated_bad_steps_stop_the_run_and_keep_the_last_good_checkpoint(tmp_path):
    trainer = toy_trainer(tmp_path, "training.max_skipped_steps=3", fail_from=9)
    with pytest.raises(TrainingDiverged, match=r"step 7: 3 steps in a row.*loss is nan.*step_00000003.pt"):
        trainer.fit(display=RecordingDisplay())
    assert [path.name for path in trainer.store.paths()] == ["step_00000003.pt"]
    saved = trainer.store.load_latest()[1]
    assert all(value.isfinite().all() for value in saved["model"].values())
    assert [row["skipped_steps"] for row in read_csv(tmp_path / "metrics.csv")][-4:] == [0, 1, 2, 3]


def test_time_limit_ends_the_run_after_its_decay(tmp_path, monkeypatch):
    now = [0.0]

    def clock():
        now[0] += 0.01
        return now[0]

    monkeypatch.setattr("sem.training.loop.time.monotonic", clock)
    limits = ["training.max_steps=100000", "training.decay_steps=20000", "training.max_minutes=0.02"]
    result = toy_trainer(tmp_path, *limits).fit(display=RecordingDisplay())
    rows = read_csv(tmp_path / "metrics.csv")
    assert 20 < result.step < 100
    assert 1.2 <= rows[-1]["elapsed_seconds"] < 1.3
    assert "val_bits_per_byte" in rows[-1]
    assert max(row["learning_rate"] for row in rows) == 0.01
    assert rows[-1]["learning_rate"] < 0.003
    saved = CheckpointStore(tmp_path / "checkpoints").load_latest()[1]
    assert saved["loop"]["elapsed_seconds"] >= rows[-1]["elapsed_seconds"]


def test_departures_from_health_are_reported_once(tmp_path):
    trainer = toy_trainer(tmp_path)
    trainer.diagnostics = lambda: ToyDiagnostics(unitarity_deviation=0.5)
    display = RecordingDisplay()
    trainer.build_loop(display=display).run()
    assert display.messages == ["step 1: unitarity_deviation is 0.5, expected: < 0.0001"]
    assert not [row for row in wave_criteria(SEMConfig()) if not row.judge(HEALTHY).passed]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signal_ends_the_run_after_the_step_with_a_checkpoint(tmp_path, number):
    whole = losses_of(tmp_path / "whole")
    trainer = toy_trainer(tmp_path / "parts")
    display = RecordingDisplay()

    def raise_at_five(*arguments):
        RecordingDisplay.update(display, *arguments)
        if len(display.losses) == 5:
            signal.raise_signal(number)

    display.update = raise_at_five
    before = signal.getsignal(number)
    result = trainer.fit(display=display)
    assert signal.getsignal(number) is before
    assert (result.step, result.interrupted_by) == (5, signal.Signals(number).name)
    assert trainer.store.load_latest()[0].name == "step_00000005.pt"
    assert display.losses + losses_of(tmp_path / "parts", resume="auto") == whole


@pytest.fixture
def usual_interrupt():
    """Python's own SIGINT handler: a process started in the background inherits an ignored SIGINT instead."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_second_signal_acts_as_usual(tmp_path, usual_interrupt):
    trainer = toy_trainer(tmp_path)
    display = RecordingDisplay()

    def raise_twice(*arguments):
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)

    display.update = raise_twice
    with pytest.raises(KeyboardInterrupt):
        trainer.fit(display=display)


KILLED_RUN = """
import sys, time
from toy import toy_trainer
from sem.training import checkpoint

def stall_at_six(target, content, write=checkpoint.write_atomically):
    if target.name == "step_00000006.pt":
        torch_save = checkpoint._save
        def save_half(content, file):
            torch_save(content, file)
            file.truncate(file.tell() // 2)
            file.flush()
            print("half written", flush=True)
            time.sleep(60)
        checkpoint._save = save_half
    write(target, content)

checkpoint.write_atomically = stall_at_six
toy_trainer(sys.argv[1]).fit()
"""


def test_run_killed_while_it_writes_a_checkpoint_continues_from_the_last_good_one(tmp_path):
    whole = losses_of(tmp_path / "whole")
    process = start(KILLED_RUN, str(tmp_path / "killed"))
    seen = []
    while (line := process.stdout.readline()) != "half written\n":
        seen.append(line)
        assert line, f"the run ended before it could be killed: {''.join(seen)}"
    process.kill()
    assert process.wait(timeout=60) == -signal.SIGKILL
    process.stdout.close()
    folder = tmp_path / "killed"
    assert {path.name for path in (folder / "checkpoints").iterdir()} == {
        "step_00000003.pt",
        "step_00000006.pt.writing",
    }
    assert losses_of(folder, resume="auto") == whole[3:]
    rows = read_csv(folder / "metrics.csv")
    assert [row["loss"] for row in rows] == whole
    assert [row["step"] for row in rows] == list(range(1, 13))


def test_checkpoint_of_another_model_is_refused(tmp_path):
    toy_trainer(tmp_path).fit(display=RecordingDisplay())
    with pytest.raises(ValueError, match="(?s)does not fit the configured model.*embedding.weight"):
        toy_trainer(tmp_path, width=16).fit(resume="auto", display=RecordingDisplay())
