"""``sem check`` as its user meets it."""

import json
import signal
import subprocess
import sys

import pytest
import torch
from small_model import SMALL_MODEL, as_options

from sem.cli import main

SIZES = (
    *as_options(SMALL_MODEL),
    "--training.batch_size=2",
    "--training.num_threads=1",
    "--training.warmup_steps=0",
)


@pytest.fixture(autouse=True)
def threads():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def command(folder, *more):
    return ["check", "--synthetic", "--device", "cpu", "--output", str(folder), *SIZES, *more]


def start(folder, *more):
    arguments = [sys.executable, "-m", "sem", *command(folder, *more)]
    return subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def evidence_in(folder):
    return json.loads((folder / "check.json").read_text())


def test_healthy_process(tmp_path):
    child = start(tmp_path, "--steps", "4", "--precision", "selective-bf16")
    output, errors = child.communicate(timeout=120)
    assert (child.returncode, "FAILED" in errors) == (0, False), output + errors
    for text in ("step 4 (100 %)", "cg_true_residual", "tokens_per_second", "propagator: float32", str(tmp_path)):
        assert text in output
    content = evidence_in(tmp_path)
    assert (content["verdict"], content["steps_done"], content["precision_mode"]) == ("healthy", 4, "selective-bf16")
    assert (
        content["overrides"].items()
        >= {
            "synthetic": True,
            "training.precision_mode": "selective-bf16",
            "training.device": "cpu",
            "model.hidden_dim": 16,
        }.items()
    )


def test_failing_process_names_the_rows(tmp_path):
    child = start(tmp_path, "--steps", "2", "--propagator.cayley_dt=3", "--propagator.cg_max_iter=1")
    output, errors = child.communicate(timeout=120)
    assert child.returncode == 1, output + errors
    content = evidence_in(tmp_path)
    assert content["verdict"] == "failed" and "cg_residual" in content["failed"]
    for name in content["failed"]:
        assert f"FAILED {name}: " in errors
    assert errors.count("FAILED") == len(content["failed"])
    assert "expected: < 0.0001" in errors


def test_interrupted_process_judges_what_it_saw(tmp_path):
    child = start(tmp_path, "--steps", "100000")
    while not (line := child.stdout.readline()).startswith("step 1 "):
        assert line, child.stderr.read()
    child.send_signal(signal.SIGINT)
    _, errors = child.communicate(timeout=120)
    assert child.returncode == 0, errors
    content = evidence_in(tmp_path)
    done = content["steps_done"]
    assert content["interrupted_by"] == "SIGINT" and 1 <= done < 100000
    assert f"SIGINT: stopped after step {done} of 100000; judged on those" in errors


def test_evidence_has_a_place_of_its_own(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "small.yaml").write_text("training: {learning_rate: 2e-3, output_dir: runs/small}\n")
    arguments = command(tmp_path, "--steps", "2", "--config", "small.yaml")
    del arguments[arguments.index("--output") : arguments.index("--output") + 2]
    assert main(arguments) == 0
    assert (tmp_path / "runs" / "check-small-32-true" / "check.md").is_file()
    assert not (tmp_path / "runs" / "small").exists()
    assert "training.learning_rate" not in evidence_in(tmp_path / "runs" / "check-small-32-true")["overrides"]
    capsys.readouterr()
    assert main([*arguments, "--output", "runs/small"]) == 2
    assert "--output runs/small: expected a folder of its own" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--steps", "0"], "--steps 0: expected an integer from 1 to training.max_steps"),
        (["--every", "0"], "--every 0: expected an integer >= 1"),
        (["--steps", "9", "--training.max_steps", "8"], "training.max_steps = 8"),
        (["--precision", "fp8"], "training.precision_mode"),
        (["--device", "tpu"], "training.device"),
    ],
)
def test_wrong_use_ends_with_status_2(more, words, tmp_path, capsys):
    assert main([*command(tmp_path / "check"), *more]) == 2
    assert words in capsys.readouterr().err
    assert not (tmp_path / "check").exists()


def test_real_text_is_the_default(tmp_path, capsys):
    (tmp_path / "text").mkdir()
    for number in range(40):
        (tmp_path / "text" / f"{number}.txt").write_text(f"wave number {number} returns to shore {number}.\n" * 3)
    arguments = command(tmp_path / "check", "--steps", "3", f"--data.paths={tmp_path / 'text'}")
    arguments.remove("--synthetic")
    assert main(arguments) == 0
    assert "synthetic" not in evidence_in(tmp_path / "check")["overrides"]
    arguments[-1] = "--data.paths=nowhere"
    assert main(arguments) == 2
    assert "nowhere" in capsys.readouterr().err


def test_a_check_is_one_process_whatever_the_configuration_trains_with(tmp_path, monkeypatch, capsys):
    folder = tmp_path / "check"
    layout = ("--training.engine=lightning", "--training.devices=4", "--training.num_nodes=2")
    assert main(["check", "--synthetic", "--steps=1", f"--output={folder}", *SIZES, *layout]) in (0, 1)
    kept = json.loads((folder / "check.json").read_text())["config"]["training"]
    assert (kept["engine"], kept["devices"], kept["num_nodes"]) == ("loop", 1, 1)
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert main(["check", "--synthetic", "--steps=1", *SIZES]) == 2
    assert "expected one process" in capsys.readouterr().err


@pytest.mark.parametrize("device", ["cuda", "xpu"])
def test_device_that_is_not_there_is_one_sentence(tmp_path, monkeypatch, capsys, device):
    monkeypatch.setattr(getattr(torch, device), "is_available", lambda: False)
    assert main(command(tmp_path, "--device", device)) != 0
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1 and f"training.device = {device!r}: expected a device of this machine" in lines[0]


def test_auto_takes_what_is_there(tmp_path):
    assert main(command(tmp_path, "--device", "auto", "--steps", "2")) in (0, 1)
    there = "cuda" if torch.cuda.is_available() else "xpu" if torch.xpu.is_available() else "cpu"
    assert evidence_in(tmp_path)["config"]["training"]["device"] == "auto"
    assert (evidence_in(tmp_path)["device"] == "cpu") == (there == "cpu")
