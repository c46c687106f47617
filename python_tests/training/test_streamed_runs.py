"""From files in the hub's formats to a trained model: tokenizer, training, resuming, text."""

import json
import os
import signal
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from processes import start
from small_model import SMALL_MODEL, as_options
from toy import RecordingDisplay

from sem.cli import main
from sem.config import SEMConfig
from sem.training.logging import read_csv
from sem.training.trainer import SEMTrainer

SIZES = (
    *as_options(SMALL_MODEL),
    "--training.batch_size=4",
    "--training.micro_batch_size=2",
    "--training.max_steps=10",
    "--training.warmup_steps=0",
    "--training.log_every=1",
    "--training.eval_every=4",
    "--training.eval_batches=2",
    "--training.num_threads=1",
    "--training.device=cpu",
    "--generation.max_new_tokens=4",
)
VOCAB_SIZE = 300


@pytest.fixture
def data(tmp_path, monkeypatch):
    """Three shards of records with scores and a tokenizer trained on them, as options of the command line."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hub"))
    folder = tmp_path / "shards"
    folder.mkdir()
    for shard in range(3):
        texts = [f"the wave number {number} of shore {shard} returns, " * 3 for number in range(30)]
        table = pa.table({"id": range(30), "text": texts, "score": [number / 10 for number in range(30)]})
        pq.write_table(table, folder / f"{shard}.parquet", row_group_size=10)
    options = [
        f"--data.dataset={folder}",
        "--data.score_field=score",
        "--data.min_score=1.0",
        "--data.shuffle_buffer=8",
    ]
    tokenizer = tmp_path / "wave.json"
    arguments = ["tokenizer", "train", *options, "--vocab_size", str(VOCAB_SIZE), "--output", str(tokenizer)]
    assert main(arguments) == 0
    return [
        *options,
        f"--data.tokenizer={tokenizer}",
        f"--model.vocab_size={VOCAB_SIZE}",
        "--data.validation_share=0.2",
    ]


def config_of(folder, data, *overrides):
    return SEMConfig().with_overrides(*SIZES, *data, f"training.output_dir={folder}", *overrides)


@pytest.mark.parametrize("workers", [0, 1])
def test_an_interrupted_run_on_a_stream_repeats_the_uninterrupted_one(tmp_path, data, workers):
    def trainer(folder):
        return SEMTrainer(config_of(tmp_path / folder, data, f"data.num_workers={workers}"))

    whole = RecordingDisplay()
    trainer("whole").fit(display=whole)
    part = trainer("parts")
    first, second = RecordingDisplay(), RecordingDisplay()
    part.build_loop(store=part.store, display=first).run(max_steps=3)
    part.train_loader.close()
    torch.randn(3)
    trainer("parts").fit(resume="auto", display=second)
    assert len(whole.losses) == 10
    assert first.losses + second.losses == whole.losses
    final = json.loads((tmp_path / "whole" / "final.json").read_text())
    assert final["val_bits_per_byte"] > 0
    assert json.loads((tmp_path / "parts" / "final.json").read_text()) == final


def test_the_run_brings_its_tokenizer_along(tmp_path, data, capsys):
    folder, tokenizer = tmp_path / "run", tmp_path / "wave.json"
    assert main(["train", *SIZES, *data, f"--training.output_dir={folder}", "--training.max_steps=2"]) == 0
    assert (folder / "tokenizer.json").read_bytes() == tokenizer.read_bytes()
    tokenizer.unlink()
    capsys.readouterr()
    assert main(["generate", str(folder), "--prompt", "the wave", "--length", "4"]) == 0
    assert capsys.readouterr().out.startswith("the wave")
    assert main(["report", str(folder), "--baselines"]) == 0
    assert "zlib_9: " in capsys.readouterr().out
    assert main(["train", f"--resume={folder}", "--training.max_steps=3"]) == 0
    assert [row["step"] for row in read_csv(folder / "metrics.csv")] == [1, 2, 3]
    main(["tokenizer", "train", *data[:4], "--vocab_size=280", f"--output={tokenizer}"])
    assert main(["train", f"--resume={folder}", "--training.max_steps=4"]) == 2
    assert "the saved data position does not fit this run's data: tokenizer: saved" in capsys.readouterr().err


def test_a_tokenizer_too_large_for_the_model_is_refused_before_anything_is_built(tmp_path, data, capsys, monkeypatch):
    monkeypatch.setattr("sem.training.trainer.SEMModel", None)
    options = [*SIZES, *data, f"--training.output_dir={tmp_path / 'run'}", "--model.vocab_size=270"]
    assert main(["train", *options]) == 2
    assert "model.vocab_size = 270: expected at least 300, the size of data.tokenizer" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_tokenizer_train_on_files_and_its_errors(tmp_path, capsys):
    for number in range(30):
        (tmp_path / f"{number}.txt").write_text(f"the wave number {number} returns. " * 3)
    arguments = ["tokenizer", "train", "--data.paths", str(tmp_path), "--output", str(tmp_path / "out" / "t.json")]
    assert main([*arguments, "--vocab_size=280", "--documents=5"]) == 0
    assert "280 ids from 5 documents" in capsys.readouterr().out
    first = (tmp_path / "out" / "t.json").read_bytes()
    assert main([*arguments, "--vocab_size=280", "--documents=5"]) == 0
    assert (tmp_path / "out" / "t.json").read_bytes() == first
    assert main([*arguments, "--vocab_size=100"]) == 2
    assert "vocab_size = 100: expected at least 258" in capsys.readouterr().err
    assert main([*arguments, "--documents=0"]) == 2
    assert "--documents 0: expected at least 1" in capsys.readouterr().err


CTRL_C = """
import sys
from sem.cli import main
if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
"""


def test_ctrl_c_with_readers_ends_all_processes(tmp_path, data):
    folder = tmp_path / "run"
    options = [*SIZES, *data, f"--training.output_dir={folder}", "--training.max_steps=100000", "--data.num_workers=2"]
    process = start(CTRL_C, "train", *options)
    limit = time.monotonic() + 60
    metrics = folder / "metrics.csv"
    while not (metrics.exists() and len(metrics.read_text().splitlines()) > 3):
        assert process.poll() is None and time.monotonic() < limit
        time.sleep(0.05)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    assert len(children) >= 2
    for pid in [*children, process.pid]:  # a terminal signals them all
        os.kill(int(pid), signal.SIGINT)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 0, output
    assert "SIGINT: stopped after step" in output
    while any(map(alive, children)):
        assert time.monotonic() < limit
        time.sleep(0.05)


def alive(pid: str) -> bool:
    """Whether the process runs; one that has ended and waits to be collected does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False
