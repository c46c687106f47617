import io
import json
import shutil
import signal
import subprocess
import sys

import pytest
import torch
from small_model import SMALL_MODEL, as_options

from sem.cli import main
from sem.config import SEMConfig
from sem.training.logging import CsvLog, read_csv
from sem.training.run_folder import open_checkpoint

SIZES = (
    *as_options(SMALL_MODEL),
    "--training.batch_size=2",
    "--training.num_threads=1",
    "--training.eval_batches=2",
    "--training.warmup_steps=0",
    "--generation.max_new_tokens=4",
)


@pytest.fixture(scope="module")
def text_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("text")
    for number in range(40):
        text = f"the wave number {number} returns to shore number {number}.\n" * 3
        (folder / f"{number}.txt").write_text(text)
    return folder


@pytest.fixture(autouse=True)
def threads():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def run(text_folder, tmp_path_factory):
    """The folder of a finished run of 4 steps."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    assert main(["train", *options(text_folder, folder)]) == 0
    return folder


def options(text_folder, folder, *more):
    return [
        *SIZES,
        f"--data.paths={text_folder}",
        "--training.max_steps=4",
        f"--training.output_dir={folder}",
        *more,
    ]


def test_train_writes_a_run_and_says_where(run):
    assert {path.name for path in run.iterdir()} >= {
        "config.yaml",
        "metrics.csv",
        "checkpoints",
        "sample.txt",
    }
    config = SEMConfig.from_yaml(run / "config.yaml")
    assert (config.model.hidden_dim, config.training.max_steps) == (16, 4)
    assert read_csv(run / "metrics.csv")[-1]["step"] == 4


def test_yaml_and_overrides(text_folder, tmp_path, capsys):
    (tmp_path / "c.yaml").write_text("training: {max_steps: 50, learning_rate: 2e-4}\n")
    folder = tmp_path / "run"
    more = ("--config", str(tmp_path / "c.yaml"), "--training.max_steps", "2")
    assert main(["train", *options(text_folder, folder, *more)]) == 0
    config = SEMConfig.from_yaml(folder / "config.yaml")
    assert (config.training.max_steps, config.training.learning_rate) == (2, 2e-4)
    output = capsys.readouterr().out
    assert "step 1 (50 %)" in output
    score = json.loads((folder / "final.json").read_text())["val_bits_per_byte"]
    assert f"done after step 2, {score:.4f} bits per" in output


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--training.max_stepz=3"], "training.max_steps"),
        (["--training.max_steps=0"], "training.max_steps = 0: expected an integer >= 1"),
        (["--spinor.mimo_groups=5"], "spinor.mimo_groups = 5"),
        (["--config", "nowhere.yaml"], "nowhere.yaml"),
        (["--data.paths", "nowhere"], "nowhere"),
        (["--resume", "nowhere"], "nowhere"),
    ],
)
def test_wrong_configuration_ends_with_status_2_and_names_the_key(arguments, words, tmp_path, capsys):
    assert main(["train", f"--training.output_dir={tmp_path}", *arguments]) == 2
    assert words in capsys.readouterr().err


def test_without_a_command_help_is_shown(capsys):
    assert main([]) == 2
    output = capsys.readouterr().err
    assert all(command in output for command in ("train", "generate", "check", "bench", "info", "report"))


def test_second_run_in_the_folder_is_refused(run, text_folder, capsys):
    assert main(["train", *options(text_folder, run)]) == 2
    assert "--overwrite" in capsys.readouterr().err


def test_resume_takes_the_saved_settings(run, tmp_path):
    folder = tmp_path / "moved"
    folder.symlink_to(run)
    assert main(["train", "--resume", str(folder), "--training.max_steps", "6"]) == 0
    assert read_csv(run / "metrics.csv")[-1]["step"] == 6
    assert SEMConfig.from_yaml(run / "config.yaml").training.output_dir == str(folder)


def test_a_run_saved_under_old_names_goes_on_bit_for_bit(text_folder, tmp_path):
    def resumed(folder):
        assert main(["train", "--resume", str(folder), "--training.max_steps", "6"]) == 0
        return open_checkpoint(folder)[1]

    new, old = tmp_path / "new", tmp_path / "old"
    assert main(["train", *options(text_folder, new, "--propagator.kerr=0.3")]) == 0
    shutil.copytree(new, old)
    path, content = open_checkpoint(old)
    content["config"]["propagator"] = under_old_names(content["config"]["propagator"], "kerr", "nonlinear_alpha")
    content["model"] = under_old_names(content["model"], "propagator.layers.0.kerr", "propagator.layers.0.alpha")
    torch.save(content, path)
    text = (old / "config.yaml").read_text()
    assert text.count("  kerr: 0.3\n") == 1
    (old / "config.yaml").write_text(text.replace("  kerr: 0.3\n", "  nonlinear_alpha: 0.3\n"))
    assert main(["generate", str(old), "--length", "2"]) == 0

    expected, found = resumed(new), resumed(old)
    assert found["model"].keys() == expected["model"].keys()
    assert all(torch.equal(value, expected["model"][name]) for name, value in found["model"].items())
    moments = [content["optimizer"]["state"] for content in (expected, found)]
    assert moments[0].keys() == moments[1].keys()
    assert all(torch.equal(moments[0][k][name], moments[1][k][name]) for k in moments[0] for name in moments[0][k])
    assert found["config"]["propagator"] == expected["config"]["propagator"]
    assert found["config"]["propagator"]["kerr"] == 0.3


def under_old_names(values, new, old):
    assert new in values
    return {old if name == new else name: value for name, value in values.items()}


def test_generate_streams_text_that_the_seed_decides(run, capsys):
    def text(*more):
        assert main(["generate", str(run), "--prompt", "the: 'wave", "--length", "12", *more]) == 0
        return capsys.readouterr().out

    assert text("--seed", "1").startswith("the: 'wave")
    assert text("--seed", "1") == text("--seed", "1")
    assert text("--temperature", "0", "--seed", "1") == text("--top_k", "1", "--seed", "2")
    checkpoint = next((run / "checkpoints").glob("step_*.pt"))
    assert main(["generate", str(checkpoint), "--length", "2"]) == 0


class CtrlC(io.StringIO):
    """A terminal whose user presses Ctrl-C once, after some text."""

    pressed = False

    def write(self, text):
        count = super().write(text)
        if len(self.getvalue()) > 30 and not self.pressed:
            self.pressed = True
            signal.raise_signal(signal.SIGINT)
        return count


def test_interrupted_generation_leaves_the_text_so_far(run, monkeypatch):
    terminal = CtrlC()
    monkeypatch.setattr(sys, "stdout", terminal)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        assert main(["generate", str(run), "--prompt", "the wave", "--length", "100000"]) == 0
    finally:
        signal.signal(signal.SIGINT, before)
    text = terminal.getvalue()
    assert terminal.pressed and text.startswith("the wave") and text.endswith("\n") and len(text) < 60


def test_generate_names_what_is_wrong(run, tmp_path, capsys):
    assert main(["generate", str(run), "--top_p", "1.5"]) == 2
    assert "generation.top_p = 1.5: expected a number > 0 and <= 1" in capsys.readouterr().err
    assert main(["generate", str(run), "--prompt", "caf\udce9"]) == 2  # as Python takes a byte that is no UTF-8
    assert "generation.prompt: expected text in UTF-8, got the byte 0xe9 at position 3" in capsys.readouterr().err
    (tmp_path / "broken.pt").write_bytes(b"PK")
    assert main(["generate", str(tmp_path / "broken.pt")]) == 1
    assert "broken.pt: damaged" in capsys.readouterr().err


def test_info_lists_versions_back_ends_and_threads(capsys):
    assert main(["info"]) == 0
    output = capsys.readouterr().out
    for text in (torch.__version__, "cpu kernels", "cuda kernels", "threads"):
        assert text in output


def test_report_draws_curves_and_scores_baselines(run, capsys):
    (run / "curves.png").unlink()
    assert main(["report", str(run), "--baselines"]) == 0
    output = capsys.readouterr().out
    assert (run / "curves.png").exists()
    for text in ("bits per byte on held-out text", "order_2", "order_3", "zlib_9"):
        assert text in output


def test_report_without_a_run_is_an_error(tmp_path, capsys):
    assert main(["report", str(tmp_path)]) == 2
    assert "metrics.csv" in capsys.readouterr().err
    CsvLog(tmp_path / "metrics.csv").close()
    assert main(["report", str(tmp_path)]) == 2


def test_diverging_run_ends_with_status_1(text_folder, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("sem.training.step._problem", lambda loss, norm: "the loss is nan")
    more = ("--training.max_skipped_steps=2",)
    assert main(["train", *options(text_folder, tmp_path, *more)]) == 1
    assert "stopped at step 2: 2 steps in a row failed (the loss is nan)" in capsys.readouterr().err


def process(*arguments):
    return subprocess.Popen(
        [sys.executable, "-m", *arguments], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def test_interrupted_process_ends_cleanly_and_continues(text_folder, tmp_path):
    more = ("--training.max_steps=100000", "--training.log_every=1")
    child = process("sem.train", *options(text_folder, tmp_path, *more))
    seen = []
    while "step 3 " not in (line := child.stdout.readline()):
        seen.append(line)
        assert line, f"the run ended by itself: {''.join(seen)}"
    child.send_signal(signal.SIGTERM)
    output = child.communicate(timeout=120)[0]
    assert child.returncode == 0
    assert "SIGTERM: stopped after step" in output
    step = read_csv(tmp_path / "metrics.csv")[-1]["step"]
    child = process("sem", "train", "--resume", str(tmp_path), f"--training.max_steps={step + 2:.0f}")
    output = child.communicate(timeout=120)[0]
    assert child.returncode == 0
    assert f"continuing after step {step:.0f}" in output
    assert f"done after step {step + 2:.0f}" in output
