import json
import math
import os
import re
import signal
import time

import pytest
import torch
from small_model import SMALL_MODEL, as_options

from sem.bench import learning, learning_report, main
from sem.bench.language_models import ENTRANTS, Entrant
from sem.bench.learning import Run, order, run_config, train
from sem.config import SEMConfig
from sem.data import load_corpus
from sem.signals import StopRequest

MINUTES = 0.01


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    path = tmp_path_factory.mktemp("text") / "text.txt"
    path.write_text("".join(f"line {n}: the square of {n} is {n * n}\n" for n in range(1000)))
    return path


@pytest.fixture
def base(text):
    small = SEMConfig.from_dict({}, (*SMALL_MODEL, "training.batch_size=2", "training.unitary_lambda=0"))
    return small.with_overrides(f"data.paths={json.dumps([str(text)])}", "training.device=cpu")


def run(entrant, base, minutes=MINUTES, stop=None, on_step=lambda *_: None):
    config = run_config(base, entrant, minutes, seed=3, threads=1)
    corpus = load_corpus(base.data.paths, validation_share=base.data.validation_share)
    return train(entrant, config, corpus, StopRequest() if stop is None else stop, on_step)


def finished(model, seed, bits, **changed):
    figures = {"parameters": 10, "steps": 100, "tokens": 5000, "seconds": 2.0, "curve": [(1.0, 4.0), (2.0, bits)]}
    return Run(model=model, seed=seed, bits_per_byte=bits, **{**figures, **changed})


class TestRunConfig:
    def test_runs_take_turns_seed_by_seed(self):
        assert order(["gpt", "gru"], [5, 2]) == [("gpt", 5), ("gru", 5), ("gpt", 2), ("gru", 2)]

    def test_the_clock_alone_ends_a_run_and_the_decay_keeps_its_share(self):
        base = SEMConfig().with_overrides("training.max_steps=200", "training.decay_steps=50")
        training = run_config(base, ENTRANTS["sem"], 2.5, seed=7, threads=2).training
        assert training.max_minutes == 2.5
        assert training.max_steps >= 1000 * 200
        assert training.decay_steps / training.max_steps == 0.25
        assert (training.seed, training.num_threads) == (7, 2)

    @pytest.mark.parametrize("name", ENTRANTS)
    def test_one_seed_is_one_order_of_the_text_for_all(self, name):
        config = run_config(SEMConfig(), ENTRANTS[name], 1, seed=4, threads=1)
        assert config.data.shuffle_seed == 4

    @pytest.mark.parametrize("name", ["gpt", "gru"])
    def test_peers_have_their_own_settings_and_the_same_text(self, name, base):
        config = run_config(base, ENTRANTS[name], 1, seed=0, threads=1)
        assert config.seq_length == 256
        assert config.training.learning_rate != base.training.learning_rate
        assert (config.data.paths, config.data.validation_share) == (base.data.paths, base.data.validation_share)

    def test_peers_have_no_stages_to_choose_a_precision_for(self):
        base = SEMConfig().with_overrides("training.precision_mode=selective-bf16")
        modes = {n: run_config(base, e, 1, 0, 1).training.precision_mode for n, e in ENTRANTS.items()}
        assert modes == {name: "selective-bf16" if name == "sem" else "bf16-mixed" for name in ENTRANTS}


class TestTrain:
    def test_ends_with_the_first_step_over_the_limit(self, base):
        shares = []
        result = run(ENTRANTS["sem"], base, on_step=lambda step, share, *_: shares.append(share))
        assert result.steps == len(shares) > 5
        assert 60 * MINUTES <= result.seconds < 60 * MINUTES + 0.3
        assert all(share < 1 for share in shares[:-1])
        assert shares[-1] == 1

    def test_scoring_is_not_training_time(self, base, monkeypatch):
        scored = []

        def slow_score(*args, **kwargs):
            scored.append(time.sleep(0.1))
            return {"bits_per_byte": 1.0}

        monkeypatch.setattr(learning, "evaluate", slow_score)
        run(ENTRANTS["sem"], base)
        assert 0.1 * len(scored) > 2 * 60 * MINUTES

    def test_the_curve_falls_and_ends_with_the_run(self, base):
        result = run(ENTRANTS["sem"], base, minutes=0.03)
        seconds, bits = zip(*result.curve, strict=True)
        assert list(seconds) == sorted(seconds)
        assert seconds[-1] == result.seconds
        assert bits[-1] < bits[0]

    def test_counts_every_token_it_trained_on(self, base):
        result = run(ENTRANTS["sem"], base)
        rows = base.training.batch_size * base.seq_length
        assert 0.9 * rows * result.steps <= result.tokens <= rows * result.steps

    def test_the_score_is_that_of_all_held_out_text(self, base):
        """A model that cannot learn and gives every token the same probability has a known score."""

        class Uniform(torch.nn.Module):
            def __init__(self):
                super().__init__()
                self.unused = torch.nn.Parameter(torch.zeros(()))

            def forward(self, tokens, targets, diagnostics=None):
                counted = (targets >= 0).sum()
                nll = counted * math.log(256) + 0 * self.unused
                return {"loss": nll / counted, "nll_sum": nll.detach()}

        result = run(Entrant("uniform", lambda config: Uniform()), base)
        held_out = load_corpus(base.data.paths, validation_share=base.data.validation_share).validation
        expected = 8 * (held_out.num_bytes + len(held_out)) / held_out.num_bytes
        assert result.bits_per_byte == pytest.approx(expected, rel=1e-5)

    def test_divergence_is_a_result(self, base):
        class Broken(torch.nn.Module):
            def __init__(self):
                super().__init__()
                self.weight = torch.nn.Parameter(torch.zeros(()))

            def forward(self, tokens, targets, diagnostics=None):
                return {"loss": self.weight * math.nan, "nll_sum": self.weight.detach()}

        result = run(Entrant("broken", lambda config: Broken()), base)
        assert result.bits_per_byte is None
        assert "in a row failed" in result.problem

    def test_a_wish_to_stop_ends_it_without_a_result(self, base):
        stop = StopRequest()

        def ask(step, *_):
            if step == 3:
                stop.signal_name = "SIGINT"
            assert step <= 3

        assert run(ENTRANTS["sem"], base, minutes=5, stop=stop, on_step=ask) is None


class TestReport:
    def test_summary_has_mean_and_spread_over_seeds(self):
        runs = [finished("gru", 0, 2.0), finished("gru", 1, 3.0), finished("gpt", 0, 9.0)]
        summary = learning_report.summarize("gru", runs)
        assert (summary["bits_per_byte"], summary["bits_per_byte_min"], summary["bits_per_byte_max"]) == (2.5, 2.0, 3.0)
        assert (summary["seeds"], summary["tokens_per_second"]) == (2, 2500)

    def test_a_failed_run_is_not_in_the_mean(self):
        runs = [finished("gru", 0, 2.0), finished("gru", 1, None, problem="stopped", curve=[])]
        assert learning_report.summarize("gru", runs)["seeds"] == 1
        assert learning_report.summarize("gru", runs[1:]) is None

    def test_training_names_the_optimizer(self):
        base = SEMConfig().with_overrides("model.hidden_dim=128")
        texts = {name: learning_report.training(run_config(base, ENTRANTS[name], 1, 0, 1)) for name in ENTRANTS}
        text = texts["gru"]
        assert text.startswith("muon 0.04 and AdamW 0.003") and texts["gru_adamw"].startswith("AdamW 0.003")
        assert "16 x 256 tokens" in text
        assert "cosine to 0.02" in text

    @pytest.mark.parametrize(
        ("settings", "words"),
        [
            ("optimizer=sgd", "SGD 0.0012, weight decay 0.1, momentum 0.9"),
            ("optimizer=adam", "Adam 0.0012, weight decay 0.1, betas 0.9 0.95, clip 1, "),
            ("gradient_clip_kind=agc", "clip 1 (agc)"),
            ("scheduler=wsd", "linear over the last 10% to 0.1"),
            ("scheduler=exponential", "times 0.95 every 1 steps"),
            ("scheduler=plateau", "times 0.5 on a plateau"),
        ],
    )
    def test_training_names_what_it_was_told(self, settings, words):
        assert words in learning_report.training(SEMConfig().with_overrides(f"training.{settings}"))


class TestCommand:
    @pytest.fixture
    def options(self, base, text):
        small = (*SMALL_MODEL, "training.batch_size=2", "training.device=cpu")
        return ("learning", "--minutes", str(MINUTES), *as_options(small), "--data.paths", str(text))

    def test_the_whole_command(self, options, tmp_path, capsys):
        path, picture = tmp_path / "learning.json", tmp_path / "learning.png"
        files = ("--json", str(path), "--plot", str(picture))
        assert main([*options, "--seeds", "0", "1", "--models", "gru", "sem", "gpt", *files]) == 0
        document = json.loads(path.read_text())
        assert document.keys() == {"schema", "machine", "settings", "models", "runs", "summary"}
        runs = [(run["model"], run["seed"]) for run in document["runs"]]
        assert runs == [(model, seed) for seed in (0, 1) for model in ("gru", "sem", "gpt")]
        for run in document["runs"]:
            assert 0 < run["bits_per_byte"] < 12
            assert run["seconds"] >= 60 * MINUTES
            assert run["curve"][-1][0] == run["seconds"]
            assert run["tokens_per_second"] == pytest.approx(run["tokens"] / run["seconds"])
        assert document["settings"]["held_out_bytes"] > 0
        found = document["models"]["gru"]["config"]
        assert found["training"]["learning_rate"] == pytest.approx(3e-3 * (128 / found["model"]["hidden_dim"]) ** 0.5)
        assert document["summary"]["sem"]["seeds"] == 2
        assert picture.read_bytes().startswith(b"\x89PNG")
        shown = capsys.readouterr()
        assert all(name in shown.out for name in ("gru", "sem", "gpt", "bits/byte", "AdamW"))
        assert "run 6 of 6: gpt, seed 1" in shown.err
        assert "left 0:00:0" in shown.err

    def test_ablations_train_beside_the_model(self, options, tmp_path, capsys):
        path, born, wide = (tmp_path / name for name in ("learning.json", "born.yaml", "wide.yaml"))
        born.write_text("sampler:\n  kind: born\n")
        wide.write_text("model:\n  hidden_dim: 32\ntraining:\n  optimizer: adamw\n")
        files = ("--ablations", str(born), str(wide), "--json", str(path))
        # what the command line says wins over the files, here as everywhere
        options = [option for option in options if not option.startswith("--model.hidden_dim")]
        assert main([*options, "--seeds", "0", "--models", "sem", *files]) == 0
        document = json.loads(path.read_text())
        assert [run["model"] for run in document["runs"]] == ["sem", "born", "wide"]
        configs = {name: model["config"] for name, model in document["models"].items()}
        assert {name: config["sampler"]["kind"] for name, config in configs.items()} == {
            "sem": "coherent",
            "born": "born",
            "wide": "coherent",
        }
        assert configs["wide"]["model"]["hidden_dim"] == 32
        assert configs["sem"]["training"]["max_minutes"] == configs["wide"]["training"]["max_minutes"]
        assert document["models"]["sem"]["training"].startswith("muon 0.02 and AdamW")
        assert document["models"]["wide"]["training"].startswith("AdamW")
        assert "run 3 of 3: wide, seed 0" in capsys.readouterr().err

    def test_two_ablations_of_one_name_are_an_error(self, options, tmp_path):
        (tmp_path / "gru.yaml").write_text("")
        with pytest.raises(ValueError, match="expected a name of its own, there is another 'gru'"):
            main([*options, "--ablations", str(tmp_path / "gru.yaml")])

    def test_what_was_measured_outlives_an_interruption(self, options, tmp_path, capsys, monkeypatch):
        path = tmp_path / "learning.json"
        whole = learning.train

        def interrupted(entrant, config, *rest):
            if config.training.seed == 1:
                os.kill(os.getpid(), signal.SIGINT)
            return whole(entrant, config, *rest)

        monkeypatch.setattr(learning, "train", interrupted)
        assert main([*options, "--seeds", "0", "1", "--models", "sem", "--json", str(path)]) == 0
        assert [run["seed"] for run in json.loads(path.read_text())["runs"]] == [0]
        shown = capsys.readouterr()
        assert "SIGINT: 1 of 2 runs were finished" in shown.err
        assert "sem" in shown.out

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (["--minutes", "0"], "more than 0 minutes, got 0"),
            (["--minutes", "nan"], "more than 0 minutes, got nan"),
            (["--minutes", "five"], "expected a number of minutes, got 'five'"),
            (["--seeds", "-1"], "expected at least 0, got -1"),
            (["--models", "lstm"], "--models = 'lstm': expected one of sem, mingru, gru, gpt"),
            (["--config", "/no/such/file.yaml"], "/no/such/file.yaml"),
            (["--training.learning_rat", "1"], "training.learning_rate"),
            (["--data.dataset", "owner/name"], "data.dataset = 'owner/name': expected null"),
            (["--data.paths", "/no/such/text"], "data.paths"),
        ],
    )
    def test_wrong_arguments_are_named(self, arguments, message):
        with pytest.raises(ValueError, match=re.escape(message)):
            main(["learning", *arguments])
