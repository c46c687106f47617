import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from sem.config import GenerationConfig
from sem.data import ByteTokenizer
from sem.generation import filter_log_probabilities, generate_text, generate_tokens

DISTRIBUTION = torch.tensor([0.1, 0.4, 0.2, 0.3]).log()


class Scripted(nn.Module):
    """Always continues with the next id of a script, from what it has seen; keeps what it was shown."""

    def __init__(self, script, vocab_size=260):
        super().__init__()
        self.anchor = nn.Parameter(torch.zeros(1))
        self.script, self.vocab_size = script, vocab_size
        self.contexts = []

    def forward(self, tokens):
        position = len(self.contexts)
        self.contexts.append(tokens[0].tolist())
        assert not self.training
        log_probabilities = torch.full((1, tokens.shape[1], self.vocab_size), -math.inf)
        log_probabilities[0, -1, self.script[position % len(self.script)]] = 0.0
        return log_probabilities


class Uniform(Scripted):
    def forward(self, tokens):
        return torch.full((1, tokens.shape[1], self.vocab_size), -math.log(self.vocab_size))


def drawn(model, prompt=(1,), **options):
    return list(generate_tokens(model, prompt, **({"max_new_tokens": 5, "max_seq_length": 8} | options)))


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


def test_context_grows_to_its_limit_and_slides():
    model = Scripted([5, 6, 7])
    drawn(model, prompt=(1, 2), max_seq_length=3)
    assert model.contexts == [[1, 2], [1, 2, 5], [2, 5, 6], [5, 6, 7], [6, 7, 5]]
    model = Scripted([5])
    drawn(model, prompt=(1, 2, 3, 4), max_seq_length=2, max_new_tokens=1)
    assert model.contexts == [[3, 4]]


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
    tokens = generate_tokens(model, [1], max_new_tokens=5, max_seq_length=4)
    next(tokens)
    tokens.close()
    assert model.training


def test_boundary_errors():
    with pytest.raises(ValueError, match="prompt"):
        drawn(Scripted([5]), prompt=())
    for name in ("max_new_tokens", "max_seq_length"):
        with pytest.raises(ValueError, match=name):
            drawn(Scripted([5]), **{name: 0})


def test_damaged_model_is_an_error():
    model = Scripted([5])
    model.forward = lambda tokens: torch.full((1, tokens.shape[1], 260), math.nan)
    with pytest.raises(FloatingPointError, match="not finite"):
        drawn(model)


def text(script, **settings):
    model = Scripted(script)
    config = GenerationConfig(**({"max_new_tokens": len(script)} | settings))
    return model, list(generate_text(model, ByteTokenizer(), config, max_seq_length=64))


def test_text_comes_in_whole_characters():
    model, pieces = text(list("né€!".encode()), prompt="ab")
    assert pieces == ["n", "é", "€", "!"]
    assert model.contexts[0] == [257, 97, 98]


def test_text_ends_with_its_document():
    assert text([*b"ab", 257, *b"cd"])[1] == ["a", "b"]


def test_bytes_that_are_no_text_are_replaced_and_marks_left_out():
    assert "".join(text([0x61, 0xFF, 258, 0x62, 0xE2])[1]) == "a\ufffdb\ufffd"
