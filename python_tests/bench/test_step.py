import json
import re

import pytest
import torch
from small_model import SMALL_MODEL, as_options

from sem.bench import main
from sem.bench.step import measure_step
from sem.config import SEMConfig

STEP = (*SMALL_MODEL, "training.batch_size=4", "training.micro_batch_size=2", "training.device=cpu")


@pytest.fixture
def text(tmp_path):
    path = tmp_path / "text.txt"
    path.write_text("".join(f"line {n}: the square of {n} is {n * n}\n" for n in range(1000)))
    return path


def test_a_step_is_the_whole_batch(text):
    config = SEMConfig.from_dict({}, STEP).with_overrides(f"data.paths={json.dumps([str(text)])}")
    step = measure_step(config, repeats=7, warmup=1)
    assert step.tokens == 4 * config.seq_length
    assert step.seconds.min <= step.seconds.median <= step.seconds.max
    assert step.tokens_per_second == pytest.approx(step.tokens / step.seconds.median)
    assert step.finite
    assert step.memory_mib > 0


def test_a_step_that_is_not_finite_is_told(text, monkeypatch):
    config = SEMConfig.from_dict({}, STEP).with_overrides(f"data.paths={json.dumps([str(text)])}")
    from sem.training.language import LanguageModelObjective

    figures = LanguageModelObjective.__call__

    def broken(self, *args):
        return {**(found := figures(self, *args)), "loss": found["loss"] * torch.nan}

    monkeypatch.setattr(LanguageModelObjective, "__call__", broken)
    assert not measure_step(config.with_overrides("training.max_skipped_steps=100"), repeats=7, warmup=0).finite


def test_the_whole_command(text, tmp_path, capsys):
    path = tmp_path / "step.json"
    options = ("step", *as_options(STEP), "--data.paths", str(text), "--repeats", "7", "--json", str(path))
    assert main(options) == 0
    document = json.loads(path.read_text())
    assert document.keys() == {"schema", "machine", "settings", "config", "step"}
    assert document["config"]["training"]["batch_size"] == 4
    assert document["step"]["seconds"]["median"] > 0
    shown = capsys.readouterr().out
    assert "tokens/s" in shown
    assert "peak memory" in shown


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--repeats", "3"], "expected at least 7, got 3"),
        (["--training.learning_rat", "1"], "training.learning_rate"),
        (["--data.paths", "/no/such/text"], "data.paths"),
        (["--training.device", "quantum"], "training.device"),
    ],
)
def test_wrong_arguments_are_named(arguments, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        main(["step", *arguments])
