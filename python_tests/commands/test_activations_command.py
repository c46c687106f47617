import signal

import pytest
import torch
from small_model import SMALL_MODEL, as_options

from sem.activations import read
from sem.cli import main
from sem.commands.activations import HeldOut, measure_language_model
from sem.data import build_loaders
from sem.model import SEMModel
from sem.training.checkpoint import write_atomically
from sem.training.progress import CountDisplay
from sem.training.run_folder import open_checkpoint, saved_config


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The folder of a finished run of 3 steps."""
    texts, folder = (tmp_path_factory.mktemp(name) for name in ("text", "runs"))
    for number in range(40):
        (texts / f"{number}.txt").write_text(f"the wave number {number} returns to shore number {number}.\n" * 3)
    folder = folder / "run"
    options = (
        *as_options(SMALL_MODEL),
        f"--data.paths={texts}",
        "--data.validation_share=0.2",
        "--training.batch_size=2",
        "--training.num_threads=1",
        "--training.max_steps=3",
        "--training.warmup_steps=0",
        "--training.final_eval_batches=1",
        "--generation.max_new_tokens=4",
        f"--training.output_dir={folder}",
    )
    assert main(["train", *options]) == 0
    return folder


def held_out(run):
    """The model of the run, and all of its held-out text."""
    content = open_checkpoint(run)[1]
    config = saved_config(content)
    model = SEMModel(config).eval()
    model.load_state_dict(content["model"])
    return model, torch.cat([batch["tokens"] for batch in build_loaders(config)[1]])


def altered(run, folder, change):
    """A copy of the run's checkpoint with other parameters."""
    content = open_checkpoint(run)[1]
    change(content["model"])
    write_atomically(folder / "step_00000003.pt", content)
    return folder / "step_00000003.pt"


def test_statistics_of_all_held_out_text_are_kept_with_the_run(run, capsys):
    assert main(["activations", str(run)]) == 0
    output = capsys.readouterr().out
    found = read(run / "activations.json")
    model, tokens = held_out(run)
    assert list(found.layers) == [
        "encoder",
        "mamba_layers.0",
        "propagator.layers.0",
        "final_norm",
        "sampler",
    ]
    summary = found.summary
    assert (summary.architecture, summary.samples, summary.step) == ("SEMModel", len(tokens), 3)
    assert summary.parameters == sum(parameter.numel() for parameter in model.parameters())
    assert summary.checkpoint.endswith("step_00000003.pt") and summary.data.startswith("held-out text of /")
    with torch.no_grad():
        wave = model.encoder(tokens)
        mixed = model.mamba_layers[0](wave)
        answer = model(tokens).double()
    assert found.layers["encoder"]["count"] == 2 * wave.numel() == 2 * len(tokens) * 16 * 16
    assert found.layers["mamba_layers.0"]["amplitude_mean"] == pytest.approx(float(mixed.abs().mean()), rel=1e-5)
    assert found.layers["sampler"]["mean"] == pytest.approx(float(answer.mean()), rel=1e-6)
    assert found.layers["sampler"]["std"] == pytest.approx(float(answer.std(correction=0)), rel=1e-6)
    ratio = float((mixed - wave).norm() / wave.norm())
    scale = float(model.mamba_layers[0].residual.detach())
    assert found.blocks["mamba_layers.0"] == pytest.approx(
        {"residual_ratio": ratio, "layerscale_mean": scale, "layerscale_min": scale, "layerscale_max": scale}, rel=1e-5
    )
    assert list(found.blocks) == ["mamba_layers.0", "propagator.layers.0"]
    assert "mamba_layers.0" in output and f"{len(tokens)} rows of 16 tokens, step 3" in output


@pytest.mark.parametrize("batch_size", [1, 3, 64])
def test_rows_are_the_first_ones_whatever_the_batches(run, batch_size):
    config = saved_config(open_checkpoint(run)[1])
    loader = build_loaders(config, batch_size=batch_size)[1]
    everything = held_out(run)[1]
    for most in (1, 5, 7, None):
        rows = HeldOut(loader, most)
        assert torch.equal(torch.cat(list(rows)), everything[:most])
        assert torch.equal(torch.cat(list(rows)), everything[:most])  # again
        assert rows.rows == len(everything[:most])
    assert HeldOut(loader, 10**9).rows == len(everything)


def test_batches_do_not_matter(run):
    model, _ = held_out(run)
    config = saved_config(open_checkpoint(run)[1])
    one, many = (
        measure_language_model(model, HeldOut(build_loaders(config, batch_size=size)[1]), "*") for size in (1, 64)
    )
    assert list(one.layers) == list(many.layers)
    for name, values in one.layers.items():
        for stat, value in values.items():
            prefix, _, place = stat.rpartition("_")
            if place.lstrip("p").isdigit():
                error = values["_".join(filter(None, (prefix, "percentile_error")))]
                assert abs(value - many.layers[name][stat]) <= error
            else:
                assert many.layers[name][stat] == (value if value is None else pytest.approx(value, rel=1e-6, abs=1e-6))


def test_options_choose_samples_layers_checkpoint_and_files(run, tmp_path, capsys):
    checkpoint = next((run / "checkpoints").glob("step_*.pt"))
    target, picture = tmp_path / "a.json", tmp_path / "a.png"
    more = ["--checkpoint", str(checkpoint), "--samples", "5", "--layers=mamba*", "--threads", "1"]
    assert main(["activations", str(run), *more, "--output", str(target), "--plot", str(picture)]) == 0
    found = read(target)
    assert (list(found.layers), list(found.blocks)) == (["mamba_layers.0"], ["mamba_layers.0"])
    assert (found.summary.samples, found.summary.checkpoint) == (5, str(checkpoint))
    assert found.layers["mamba_layers.0"]["count"] == 5 * 16 * 16 * 2
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert "5 rows of 16 tokens" in capsys.readouterr().out


def test_what_moved_is_told(run, tmp_path, capsys):
    first, second, third = (tmp_path / f"{name}.json" for name in "abc")

    def louder(parameters):
        parameters["mamba_layers.0.residual"] *= 2

    changed = altered(run, tmp_path, louder)
    assert main(["activations", str(run), "--output", str(first)]) == 0
    assert main(["activations", str(run), "--checkpoint", str(changed), "--output", str(second)]) == 0
    assert main(["activations", str(run), "--layers", "encoder", "--output", str(third)]) == 0
    capsys.readouterr()
    assert main(["activations", "--compare", str(first), str(second)]) == 0
    output = capsys.readouterr().out
    assert "mamba_layers.0" in output and "layerscale_mean" in output and " statistics moved, " in output
    assert "encoder" not in output and "only in" not in output
    assert main(["activations", "--compare", str(first), str(third)]) == 0
    output = capsys.readouterr().out
    assert "0 of " in output and f"only in {first}: mamba_layers.0, " in output


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda parameters: parameters.update(stranger=torch.ones(2)), 'Unexpected key(s) in state_dict: "stranger"'),
        (lambda parameters: parameters.pop("final_norm.gamma"), 'Missing key(s) in state_dict: "final_norm.gamma"'),
        (lambda parameters: parameters.update({"sampler.bias": torch.ones(2)}), "size mismatch for sampler.bias"),
        (lambda parameters: parameters.update({"final_norm.gamma": 3}), "final_norm.gamma"),
        (lambda parameters: [parameters.pop("final_norm.gamma"), parameters.update(a=torch.ones(1))], '"a"'),
    ],
)
@pytest.mark.parametrize("command", ["activations", "generate"])
def test_loading_is_strict(run, tmp_path, capsys, command, change, words):
    where = {"activations": [str(run), "--checkpoint"], "generate": []}[command]
    assert main([command, *where, str(altered(run, tmp_path, change))]) == 2
    error = capsys.readouterr().err
    assert "model: expected the parameters of SEMModel; " in error and words in error
    assert error.count("\n") == 1 and "Traceback" not in error


def test_wrong_use_is_one_line(run, tmp_path, capsys):
    content = open_checkpoint(run)[1]
    del content["model"]
    write_atomically(tmp_path / "bare.pt", content)
    (tmp_path / "a.json").write_text("{}")
    for arguments, status, words in (
        ([], 2, "expected a run, or --compare with two files, got neither"),
        ([str(run), "--compare", "a", "b"], 2, "got both"),
        ([str(run), "--samples", "0"], 2, "--samples: expected an integer >= 1 or 'all', got '0'"),
        ([str(run), "--samples", "many"], 2, "got 'many'"),
        ([str(run), "--plot", str(tmp_path / "no" / "a.png")], 2, "expected a file in a folder that exists"),
        ([str(run), "--layers", "nothing*"], 2, "layers = 'nothing*': expected a pattern of some of"),
        ([str(tmp_path)], 1, "expected the folder of a run"),
        ([str(tmp_path / "bare.pt")], 2, "expected an entry 'model' with parameters by name"),
        (["--compare", str(tmp_path / "a.json"), "b"], 2, "a.json: expected a file of activation statistics"),
    ):
        assert main(["activations", *arguments]) == status, arguments
        error = capsys.readouterr().err
        assert words in error and error.count("\n") == 1 and "Traceback" not in error


def test_ctrl_c_ends_in_one_line_and_writes_nothing(run, tmp_path, capsys, monkeypatch):
    counted = CountDisplay.advance

    def advance(display, count):
        counted(display, count)
        signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(CountDisplay, "advance", advance)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        assert main(["activations", str(run), "--output", str(tmp_path / "a.json")]) == 130
    finally:
        signal.signal(signal.SIGINT, before)
    captured = capsys.readouterr()
    assert captured.err == "\nsem: stopped by Ctrl-C\n" and not captured.out
    assert not list(tmp_path.iterdir())
