"""A run's model out and in again: bit for bit, or one sentence that says what is wrong."""

import json
import shutil
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file, save_file
from small_model import SMALL_MODEL

from sem.cli import main
from sem.config import SEMConfig
from sem.data import ByteTokenizer
from sem.data.file_tokenizer import train_tokenizer
from sem.hub.export import export_run
from sem.hub.pretrained import PretrainedSEMModel, config_of
from sem.huggingface import HubError
from sem.model import SEMModel
from sem.training.checkpoint import CheckpointError
from sem.training.progress import ProgressDisplay
from sem.training.run_folder import open_checkpoint
from sem.training.trainer import SEMTrainer

TOKENS = torch.randint(256, (2, 12), generator=torch.Generator().manual_seed(0))
FILES = {
    "README.md",
    "config.json",
    "generation_config.json",
    "model.safetensors",
    "tokenizer.json",
    "tokenizer_config.json",
}


class Quiet(ProgressDisplay):
    def __init__(self):
        super().__init__(())

    def message(self, text):
        pass

    def update(self, *_):
        pass


def train(folder, *overrides):
    text = folder.parent / "text"
    text.mkdir(exist_ok=True)
    for number in range(40):
        (text / f"{number}.txt").write_text(f"the wave number {number} returns to shore {number}.\n" * 3)
    config = SEMConfig().with_overrides(
        *SMALL_MODEL,
        "training.max_steps=4",
        "training.warmup_steps=0",
        "training.batch_size=2",
        "training.checkpoint_every=2",
        "training.ema_decay=0.5",
        "training.loggers=[csv]",
        "training.num_threads=1",
        "training.eval_batches=2",
        "generation.max_new_tokens=4",
        f"data.paths=[{text}]",
        f"training.output_dir={folder}",
        *overrides,
    )
    SEMTrainer(config).fit(display=Quiet())
    return folder


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A finished run of 4 steps, with checkpoints of 2 and 4."""
    return train(tmp_path_factory.mktemp("runs") / "waves")


@pytest.fixture(scope="module")
def exported(run, tmp_path_factory):
    folder = tmp_path_factory.mktemp("exported") / "waves"
    export_run(run, folder)
    return folder


@pytest.fixture
def folder(exported, tmp_path):
    """A copy of the exported folder, to be damaged."""
    return shutil.copytree(exported, tmp_path / "model")


def saved(model, folder):
    model.save_pretrained(folder)
    return PretrainedSEMModel.from_pretrained(folder)


def equal(first, second):
    one, other = first.state_dict(), second.state_dict()
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@torch.no_grad()
def test_a_run_goes_through_a_folder_bit_for_bit(run, tmp_path):
    _, content = open_checkpoint(run)
    trained = SEMModel(SEMConfig.from_dict(content["config"]))
    trained.load_state_dict(content["model"])
    taken = PretrainedSEMModel.from_run(run)
    again = saved(taken, tmp_path / "folder")
    assert again.config == taken.config == SEMConfig.from_yaml(run / "config.yaml")
    assert equal(again, trained)
    assert again(TOKENS).equal(trained.eval()(TOKENS))
    assert isinstance(again, SEMModel) and not again.training


@pytest.mark.parametrize(
    "kinds",
    [
        ("encoder.kind=transport", "encoder.frequency_weighting=true"),  # buffers
        ("sampler.kind=born", "propagator.echo=true", "propagator.potential=linear"),
        ("spinor.projection=complex", "propagator.pit_enabled=true", "model.layout=stacked", "model.num_layers=2"),
    ],
)
def test_every_kind_of_model_goes_through_a_folder(kinds, tmp_path):
    torch.manual_seed(1)
    model = PretrainedSEMModel(SEMConfig().with_overrides(*SMALL_MODEL, *kinds))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.01)
    again = saved(model, tmp_path)
    assert again.config == model.config and equal(again, model)


def test_tied_weights_are_stored_once_and_come_back_both(tmp_path):
    model = PretrainedSEMModel(SEMConfig().with_overrides(*SMALL_MODEL))
    model.sampler.weight = model.encoder.weight
    again = saved(model, tmp_path)
    assert "sampler.weight" not in load_file(tmp_path / "model.safetensors")
    assert again.sampler.weight.equal(model.encoder.weight) and again.encoder.weight.equal(model.encoder.weight)


def test_a_configuration_of_sections_is_not_taken_apart(tmp_path):
    config = SEMConfig().with_overrides(*SMALL_MODEL, "data.paths=[a, b]", "training.max_minutes=2.5")
    PretrainedSEMModel(config, ByteTokenizer()).save_pretrained(tmp_path)
    assert config_of(json.loads((tmp_path / "config.json").read_text())) == config
    assert PretrainedSEMModel.from_pretrained(tmp_path).config == config


def test_a_tokenizer_of_a_file_goes_along(tmp_path):
    file = tmp_path / "own.json"
    tokenizer = train_tokenizer(["the wave returns to the shore"] * 4, 270)
    tokenizer.save(file)
    run = train(tmp_path / "run", f"data.tokenizer={file}", "model.vocab_size=280")
    file.unlink()
    export_run(run, tmp_path / "out")
    shutil.rmtree(run)
    text = "the wave, naïve <|endoftext|> \n"
    for _ in range(2):  # what was written is written the same again
        model = PretrainedSEMModel.from_pretrained(tmp_path / "out")
        assert model.tokenizer.encode(text) == tokenizer.encode(text)
        assert (model.tokenizer.eos, model.tokenizer.pad) == (tokenizer.eos, tokenizer.pad)
        before = (tmp_path / "out/tokenizer.json").read_text()
        model.save_pretrained(tmp_path / "out")
        assert (tmp_path / "out/tokenizer.json").read_text() == before


def test_averages_are_exported_on_request(run, tmp_path, capsys):
    assert main(["export", str(run), "--output", str(tmp_path / "ema"), "--ema"]) == 0
    model = PretrainedSEMModel.from_pretrained(tmp_path / "ema")
    _, content = open_checkpoint(run)
    averages = content["averages"]["model"]
    assert all(tensor.equal(averages[name]) for name, tensor in model.state_dict().items())
    assert not equal(model, PretrainedSEMModel.from_run(run))
    final = json.loads((run / "final.json").read_text())
    card = (tmp_path / "ema/README.md").read_text()
    assert f"| val_bits_per_byte | {final['ema_val_bits_per_byte']:.6g} |" in card
    assert "averages with decay 0.5" in card and "ema_" not in card.partition("## Configuration")[0]


def test_export_writes_a_complete_folder_with_a_card(run, exported, capsys):
    assert {path.name for path in exported.iterdir()} == FILES
    assert [path.name for path in exported.parent.iterdir()] == ["waves"]
    card = (exported / "README.md").read_text()
    final = json.loads((run / "final.json").read_text())
    count = sum(parameter.numel() for parameter in PretrainedSEMModel.from_run(run).parameters())
    for told in (
        "library_name: sem",
        "# waves",
        f"| parameters | {count:,} in float32 |",
        "| training | 4 steps of 2 rows of 16 tokens |",
        "| precision of training | 32-true |",
        f"| text | {run.parent / 'text'} |",
        "On held-out text, after step 4:",
        f"| val_bits_per_byte | {final['val_bits_per_byte']:.6g} |",
        "  hidden_dim: 16\n",
    ):
        assert told in card
    assert "ema_val" not in card and "output_dir" not in card


def test_another_checkpoint_is_not_given_the_figures_of_the_last(run, tmp_path, capsys):
    checkpoint = run / "checkpoints/step_00000002.pt"
    options = ["--checkpoint", str(checkpoint), "--output", str(tmp_path / "out"), "--title", "me/waves"]
    assert main(["export", str(run), *options]) == 0
    card = (tmp_path / "out/README.md").read_text()
    assert "# me/waves" in card and 'from_pretrained("me/waves")' in card
    assert "Not measured: the run's figures are those after step 4." in card and "val_bits" not in card
    assert "after step 2; Not measured" in capsys.readouterr().out
    assert equal(PretrainedSEMModel.from_pretrained(tmp_path / "out"), PretrainedSEMModel.from_run(checkpoint))


def test_a_run_without_final_figures_is_exported_and_says_so(run, tmp_path, capsys):
    copy = shutil.copytree(run, tmp_path / "run")
    (copy / "final.json").unlink()
    assert main(["export", str(copy), "--output", str(tmp_path / "out")]) == 0
    assert "Not measured: the run has not come to its end." in (tmp_path / "out/README.md").read_text()


def refusal(capsys, *arguments):
    """The one line that ``sem export`` refuses with."""
    assert main(["export", *map(str, arguments)]) in (1, 2)
    (line,) = capsys.readouterr().err.splitlines()
    return line


@pytest.mark.parametrize("content", ["{", "[1]", '{"val_loss": 1}', '{"step": 4, "val_loss": "low"}'])
def test_damaged_final_figures_are_one_sentence_and_nothing_is_written(run, tmp_path, capsys, content):
    copy = shutil.copytree(run, tmp_path / "run")
    (copy / "final.json").write_text(content)
    line = refusal(capsys, copy, "--output", tmp_path / "out")
    assert "final.json: expected the figures that the end of a run writes" in line
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_export_refuses_what_it_cannot_do_in_one_sentence(run, exported, tmp_path, capsys):
    assert "expected a folder that is not there yet" in refusal(capsys, run, "--output", exported)
    assert "expected the folder of a run" in refusal(capsys, exported, "--output", tmp_path / "out")
    assert "there is no such checkpoint" in refusal(capsys, tmp_path / "none.pt", "--output", tmp_path / "out")
    plain = train(tmp_path / "plain", "training.ema_decay=0", "training.max_steps=1")
    assert "holds none (training.ema_decay = 0)" in refusal(capsys, plain, "--output", tmp_path / "out", "--ema")
    assert not (tmp_path / "out").exists()


def test_what_fails_half_way_leaves_nothing(run, tmp_path, monkeypatch):
    def broken(*_, **__):
        raise OSError("no space left")

    monkeypatch.setattr(PretrainedSEMModel, "generate_model_card", broken)
    with pytest.raises(OSError, match="no space"):
        export_run(run, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_export_left_is_in_nobodys_way(run, tmp_path):
    (tmp_path / "out.writing").mkdir()
    (tmp_path / "out.writing/old").touch()
    export_run(run, tmp_path / "out")
    assert {path.name for path in (tmp_path / "out").iterdir()} == FILES
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def damage(name, edit):
    def apply(folder):
        path = folder / name
        path.write_bytes(edit(path.read_bytes()))

    return apply


def change_config(folder, change):
    path = folder / "config.json"
    entries = json.loads(path.read_text())
    change(entries)
    path.write_text(json.dumps(entries))


def change_weights(folder, change):
    path = folder / "model.safetensors"
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path)


@pytest.mark.parametrize(
    ("harm", "sentence"),
    [
        (lambda folder: (folder / "config.json").unlink(), "it has no config.json"),
        (lambda folder: (folder / "model.safetensors").unlink(), "it has no model.safetensors"),
        (damage("config.json", lambda old: old[:100]), "config.json: damaged or no configuration"),
        (damage("config.json", lambda old: b"\xff" + old), "config.json: damaged or no configuration"),
        (damage("config.json", lambda old: b"[]"), "config.json: expected a mapping, got a list"),
        (damage("config.json", lambda old: b'{"model_type": "gpt2"}'), "of a sem model, an entry 'sem', got one of"),
        (damage("model.safetensors", lambda old: old[:-9]), "model.safetensors: damaged or no safetensors"),
        (damage("model.safetensors", lambda old: b"PK" + old[2:]), "model.safetensors: damaged or no safetensors"),
        (damage("model.safetensors", lambda old: b""), "model.safetensors: damaged or no safetensors"),
        (lambda folder: change_config(folder, lambda e: e["sem"].pop("model")), "size mismatch for"),
        (lambda folder: change_config(folder, lambda e: e["sem"]["model"].update(width=3)), "model.width = 3: unknown"),
        (lambda folder: change_weights(folder, lambda t: t.pop("sampler.bias")), 'Missing key(s) in state_dict: "samp'),
        (lambda folder: change_weights(folder, lambda t: t.update(more=t["sampler.bias"] + 1)), "Unexpected key(s)"),
    ],
)
def test_a_damaged_or_foreign_folder_is_one_sentence(folder, harm, sentence):
    harm(folder)
    with pytest.raises(ValueError) as error:
        PretrainedSEMModel.from_pretrained(folder)
    assert sentence in str(error.value) and "\n" not in str(error.value)
    assert str(folder) in str(error.value)


def test_a_damaged_checkpoint_is_one_sentence(run, tmp_path):
    checkpoint = tmp_path / "step_00000004.pt"
    checkpoint.write_bytes((run / "checkpoints/step_00000004.pt").read_bytes()[:-100])
    with pytest.raises(CheckpointError, match="damaged"):
        PretrainedSEMModel.from_run(checkpoint)


def test_a_model_goes_to_the_hub_and_comes_back(hub, run, tmp_path):
    model = PretrainedSEMModel.from_run(run)
    model.push_to_hub("me/waves", private=True)
    assert set(hub.repos["me/waves"]) - {".gitattributes"} == FILES and hub.private["me/waves"]
    assert b'from_pretrained("me/waves")' in hub.repos["me/waves"]["README.md"]
    again = PretrainedSEMModel.from_pretrained("me/waves", cache_dir=tmp_path)
    assert equal(again, model) and again.config == model.config
    requests = len(hub.requests)
    kept = PretrainedSEMModel.from_pretrained("me/waves", cache_dir=tmp_path, local_files_only=True)
    assert equal(kept, model) and len(hub.requests) == requests


def test_a_repository_that_is_not_there_is_one_sentence(hub, tmp_path):
    with pytest.raises(HubError, match="me/none: the model cannot be fetched: the hub answered 404"):
        PretrainedSEMModel.from_pretrained("me/none", cache_dir=tmp_path)
    with pytest.raises(HubError, match="me/none: the model cannot be fetched"):
        PretrainedSEMModel.from_pretrained("me/none", cache_dir=tmp_path, local_files_only=True)
    with pytest.raises(ValueError, match="expected a folder, or a repository's name"):
        PretrainedSEMModel.from_pretrained(tmp_path / "none", cache_dir=tmp_path)


def test_nothing_but_what_needs_the_hub_needs_its_library():
    script = """
import sys
sys.modules["huggingface_hub"] = sys.modules["transformers"] = None
import sem.cli, sem.generation, sem.model, sem.training.trainer
try:
    import sem.hub.pretrained
except ImportError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120)
    assert done.stdout == "the hub needs huggingface_hub 1.17 or newer: pip install 'sem-torch[hub]'\n", done.stderr
