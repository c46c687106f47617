import math
import sys

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from sem.config import SEMConfig
from sem.config_sections import GenerationConfig
from sem.data import ByteTokenizer
from sem.generation import filter_log_probabilities, generate_text, generate_tokens, token_filter
from sem.model import SEMModel

DISTRIBUTION = torch.tensor([0.1, 0.4, 0.2, 0.3]).log()


class Scripted(nn.Module):
    """Always continues with the next id of a script; its state is what it has seen."""

    def __init__(self, script, vocab_size=260):
        super().__init__()
        self.anchor = nn.Parameter(torch.zeros(1))
        self.script, self.vocab_size = script, vocab_size
        self.prompts, self.steps = [], 0

    def predict(self, position):
        log_probabilities = torch.full((1, self.vocab_size), -math.inf)
        log_probabilities[0, self.script[position % len(self.script)]] = 0.0
        return log_probabilities

    def prefill(self, tokens):
        assert not self.training
        self.prompts.append(tokens[0].tolist())
        return self.predict(0), tokens[0].tolist()

    def step(self, token, state):
        assert not self.training and token.shape == (1,)
        self.steps += 1
        return self.predict(self.steps), [*state, int(token)]


class Uniform(Scripted):
    def predict(self, position):
        return torch.full((1, self.vocab_size), -math.log(self.vocab_size))


def drawn(model, prompt=(1,), stop_token=None, **settings):
    config = GenerationConfig(**({"max_new_tokens": 5} | settings))
    return list(generate_tokens(model, prompt, config, stop_token=stop_token))


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, [0.1, 0.4, 0.2, 0.3]),
        ({"temperature": 0}, [0, 1, 0, 0]),
        ({"temperature": 0.5}, [1 / 30, 16 / 30, 4 / 30, 9 / 30]),
        ({"top_k": 2}, [0, 4 / 7, 0, 3 / 7]),
        ({"top_k": 9}, [0.1, 0.4, 0.2, 0.3]),
        ({"top_p": 0.35}, [0, 1, 0, 0]),
        ({"top_p": 0.5}, [0, 4 / 7, 0, 3 / 7]),
        ({"top_p": 0.8}, [0, 4 / 9, 2 / 9, 3 / 9]),
        ({"top_k": 3, "top_p": 0.7}, [0, 4 / 7, 0, 3 / 7]),
        ({"temperature": 1e-30}, [0, 1, 0, 0]),
    ],
)
def test_filters_by_hand(options, expected):
    torch.testing.assert_close(
        filter_log_probabilities(DISTRIBUTION, **options), torch.tensor(expected, dtype=torch.float32)
    )


def test_a_temperature_beyond_float32_leaves_out_what_cannot_be_drawn():
    log_probabilities = torch.tensor([0.0, -math.inf, -3.0])
    found = filter_log_probabilities(log_probabilities, temperature=1e300)
    assert found.tolist() == [0.5, 0.0, 0.5]


@given(
    logits=st.lists(st.floats(-50, 50, width=32), min_size=1, max_size=20),
    temperature=st.floats(0, 10),
    top_k=st.integers(0, 25),
    top_p=st.floats(0.01, 1),
)
def test_filtered_probabilities_sum_to_one_and_keep_the_likeliest(logits, temperature, top_k, top_p):
    log_probabilities = torch.tensor(logits).log_softmax(dim=-1)
    probabilities = filter_log_probabilities(log_probabilities, temperature=temperature, top_k=top_k, top_p=top_p)
    assert probabilities.sum().item() == pytest.approx(1, abs=1e-5)
    assert probabilities[log_probabilities.argmax()] > 0
    assert (probabilities > 0).sum() <= (top_k or len(logits))


def test_filters_work_on_batches_and_leave_their_input_alone():
    batch = torch.stack([DISTRIBUTION, DISTRIBUTION.flip(0)])
    before = batch.clone()
    result = filter_log_probabilities(batch, top_k=1)
    assert result.tolist() == [[0, 1, 0, 0], [0, 0, 1, 0]]
    assert torch.equal(batch, before)


@pytest.mark.parametrize("setting", [{"temperature": -1.0}, {"top_k": -1}, {"top_p": 0.0}, {"top_p": 1.1}])
def test_impossible_settings_are_named(setting):
    with pytest.raises(ValueError, match=next(iter(setting))):
        filter_log_probabilities(DISTRIBUTION, **setting)


def test_tokens_follow_the_model():
    assert drawn(Scripted([5, 6, 7])) == [5, 6, 7, 5, 6]


def test_prompt_is_read_once_and_each_token_takes_one_step():
    model = Scripted([5, 6, 7])
    drawn(model, prompt=range(100), max_new_tokens=4)
    assert model.prompts == [list(range(100))]
    assert model.steps == 3  # behind the last token nothing is asked for


@torch.no_grad()
def test_text_outgrows_the_longest_training_row_and_is_the_full_forwards():
    torch.manual_seed(0)
    sizes = {"hidden_dim": 16, "num_layers": 1, "max_seq_length": 8}
    encoder = {"sdr_candidates": 8, "sdr_sparsity": 4, "projection_dim": 8}
    model = SEMModel(
        SEMConfig.from_dict({"model": sizes, "encoder": encoder, "spinor": {"state_dim": 2, "mimo_groups": 2}})
    )
    text = [1, 2, 3]
    for token in drawn(model, prompt=text, max_new_tokens=30, temperature=0):
        assert token == int(model(torch.tensor([text]))[0, -1].argmax())
        text.append(token)
    assert len(text) == 33


def test_stop_token_ends_the_text():
    assert drawn(Scripted([5, 6, 7]), stop_token=7) == [5, 6]


def test_stop_token_is_never_drawn_first():
    for seed in range(20):
        assert 0 not in drawn(Uniform([], vocab_size=2), max_new_tokens=1, stop_token=0, seed=seed)
    assert drawn(Uniform([], vocab_size=2), max_new_tokens=50, stop_token=0, seed=1)[0] == 1


def test_seed_decides_the_draw_and_the_global_generator_is_left_alone():
    state = torch.get_rng_state()
    first, again, other = (drawn(Uniform([]), max_new_tokens=20, seed=seed) for seed in (1, 1, 2))
    assert first == again != other
    assert torch.equal(torch.get_rng_state(), state)


def test_top_k_limits_what_is_drawn():
    assert set(drawn(Uniform([]), max_new_tokens=40, top_k=3)) <= {0, 1, 2}


def test_mode_is_restored_even_when_the_text_is_cut_short():
    model = Scripted([5]).train()
    tokens = generate_tokens(model, [1], GenerationConfig(max_new_tokens=5))
    next(tokens)
    tokens.close()
    assert model.training


def test_boundary_errors():
    with pytest.raises(ValueError, match="prompt: expected at least one token, got none"):
        generate_tokens(Scripted([5]), [], GenerationConfig())


def test_damaged_model_is_an_error():
    model = Scripted([5])
    model.predict = lambda position: torch.full((1, 260), math.nan)
    with pytest.raises(FloatingPointError, match="not finite"):
        drawn(model)


def text(script, **settings):
    model = Scripted(script)
    config = GenerationConfig(**({"max_new_tokens": len(script)} | settings))
    return model, list(generate_text(model, ByteTokenizer(), config))


def test_text_comes_in_whole_characters():
    model, pieces = text(list("né€!".encode()), prompt="ab")
    assert pieces == ["n", "é", "€", "!"]
    assert model.prompts == [[257, 97, 98]]


def test_text_ends_with_its_document():
    assert text([*b"ab", 257, *b"cd"])[1] == ["a", "b"]


def test_bytes_that_are_no_text_are_replaced_and_marks_left_out():
    assert "".join(text([0x61, 0xFF, 258, 0x62, 0xE2])[1]) == "a\ufffdb\ufffd"


def transformers_distribution(seen, log_probabilities, processors):
    scores = log_probabilities[None]
    for process in processors:
        scores = process(seen[None], scores)
    return scores[0].softmax(-1)


@pytest.mark.parametrize(
    "settings",
    [
        {"temperature": 0.7},
        {"top_k": 5},
        {"top_p": 0.6},
        {"temperature": 1.7, "top_k": 40, "top_p": 0.9},
        {"min_p": 0.2},
        {"typical_p": 0.5},
        {"repetition_penalty": 1.3},
        {"repetition_penalty": 2.0, "temperature": 0.8, "top_k": 30, "top_p": 0.95, "min_p": 0.1, "typical_p": 0.9},
    ],
)
def test_filters_are_those_of_transformers(settings):
    import transformers

    processors = [
        kind(settings[name])
        for name, kind in (
            ("repetition_penalty", transformers.RepetitionPenaltyLogitsProcessor),
            ("temperature", transformers.TemperatureLogitsWarper),
            ("top_k", transformers.TopKLogitsWarper),
            ("top_p", transformers.TopPLogitsWarper),
            ("min_p", transformers.MinPLogitsWarper),
            ("typical_p", transformers.TypicalLogitsWarper),
        )
        if name in settings
    ]
    torch.manual_seed(0)
    seen = torch.tensor([3, 50, 99])
    choose = token_filter(GenerationConfig(**settings))
    for _ in range(20):
        log_probabilities = (2 * torch.randn(100)).log_softmax(-1)
        probabilities = choose(seen, log_probabilities)
        expected = transformers_distribution(seen, log_probabilities, processors)
        torch.testing.assert_close(probabilities, expected, rtol=1e-4, atol=1e-6)
        assert not torch.allclose(probabilities, log_probabilities.exp(), rtol=1e-2, atol=0)


def test_what_occurred_is_penalised_prompt_included():
    class Tied(Uniform):
        def predict(self, position):
            return torch.tensor([[0.26, 0.25, 0.25, 0.24]]).log()

    assert drawn(Tied([]), prompt=[2], max_new_tokens=4, temperature=0, repetition_penalty=3.0) == [0, 1, 3, 0]


@pytest.mark.parametrize("setting", [{"min_p": 0.1}, {"typical_p": 0.9}, {"repetition_penalty": 1.1}])
def test_filters_without_transformers(setting, monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    assert drawn(Scripted([5]), temperature=0.5, top_k=3, top_p=0.9, max_new_tokens=1) == [5]
    with pytest.raises(ImportError, match=rf"generation.{next(iter(setting))} needs transformers .*'sem-torch\[hub\]'"):
        generate_text(Scripted([5]), ByteTokenizer(), GenerationConfig(**setting))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("top_p", [5e-324, 1e-8, 1e-3])
def test_the_likeliest_token_stays_for_any_top_p(dtype, top_p):
    log_probabilities = torch.randn(500).log_softmax(-1).to(dtype)
    found = filter_log_probabilities(log_probabilities, top_p=top_p)
    assert int((found > 0).sum()) == 1 and int(found.argmax()) == int(log_probabilities.argmax())


def test_top_p_that_is_reached_exactly_keeps_no_more():
    given = torch.tensor([0.3, 0.1, 0.1, 0.5], dtype=torch.float64).log()
    assert filter_log_probabilities(given, top_p=0.8).tolist() == pytest.approx([0.375, 0, 0, 0.625])
    with pytest.raises(ValueError, match="temperature: expected a number >= 0, got nan"):
        filter_log_probabilities(given, temperature=float("nan"))
