"""Decoding token by token, and prompts in chunks, are the full forward."""

import pytest
import torch

from sem.config import SEMConfig
from sem.model import SEMModel

FORMER = (
    *("model.layout=stacked", "encoder.kind=transport", "encoder.direct=false", "encoder.carrier=absolute"),
    *("spinor.rotation=true", "spinor.output_gate=false", "propagator.potential=none", "propagator.pit_enabled=true"),
    "sampler.kind=born",
)
"""A model of before there was a choice."""


def build(*overrides):
    torch.manual_seed(0)
    sizes = {
        "model": {"hidden_dim": 40, "num_layers": 2, "max_seq_length": 64},
        "encoder": {"sdr_candidates": 23, "sdr_sparsity": 7, "projection_dim": 9},
        "spinor": {"state_dim": 3, "mimo_groups": 5},
        "propagator": {"cayley_dt": 0.1},
    }
    return SEMModel(SEMConfig.from_dict(sizes, overrides)).eval()


def tokens_of(batch, length):
    return torch.randint(260, (batch, length), generator=torch.Generator().manual_seed(1))


def steps(model, tokens, state=None):
    """Log-probabilities of every position, one step each, and the last state."""
    state = model.init_state(len(tokens)) if state is None else state
    found = []
    for token in tokens.unbind(1):
        log_probabilities, state = model.step(token, state)
        found.append(log_probabilities)
    return torch.stack(found, 1), state


def tensors(state):
    return [*state.encoder, *(tensor for layer in state.spinor for tensor in layer)]


def assert_same_predictions(found, expected):
    """The logarithm of every token's probability, to 1e-4."""
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)


def assert_same_amplitudes(found, expected):
    """Every probability to 2e-6, its square root, the modulus of the amplitude that the model computes, to 1e-5, and
    the logarithm to 2e-4 for all but the rarer tokens. Where an amplitude passes near zero, a logarithm shows the last
    bits of float32: one matrix product of other shape moves it by 1e-4 (1.01e-4 and 1.05e-6 seen with AVX2)."""
    torch.testing.assert_close(found.exp(), expected.exp(), rtol=0, atol=2e-6)
    torch.testing.assert_close((found / 2).exp(), (expected / 2).exp(), rtol=0, atol=1e-5)
    likely = expected > -5
    assert likely.float().mean() > 0.05
    torch.testing.assert_close(found[likely], expected[likely], rtol=0, atol=2e-4)


def assert_same_state(found, expected):
    for one, other in zip(tensors(found), tensors(expected), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-4)


@torch.no_grad()
def test_a_thousand_steps_are_the_full_forward():
    model, tokens = build(), tokens_of(1, 1000)
    assert_same_predictions(steps(model, tokens)[0], model(tokens))


@pytest.mark.parametrize(
    "overrides",
    [
        (),
        ("sampler.kind=born",),
        FORMER,
        ("propagator.pit_enabled=true",),
        ("propagator.potential=none",),
        ("propagator.echo=true", "propagator.cayley_dt=1"),
        ("propagator.echo=true", "propagator.pit_enabled=true"),
        ("propagator.num_layers=0",),
        ("propagator.num_layers=5",),
        ("model.layout=stacked",),
        ("spinor.rotation=true",),
        ("spinor.output_gate=false",),
        ("encoder.carrier=absolute",),
        ("encoder.carrier=demodulated",),
        ("encoder.kind=transport",),
        ("encoder.kind=transport", "encoder.carrier=demodulated"),
        ("spinor.d_conv=1",),
        ("spinor.d_conv=7",),
        ("encoder.kind=transport", "encoder.sinkhorn_max_iter=1"),
        ("encoder.kind=transport", "encoder.sinkhorn_max_iter=3", "encoder.sinkhorn_tol=1e-6"),
        ("encoder.kind=transport", "encoder.direct=false", "encoder.sinkhorn_epsilon=0.01"),
        ("propagator.num_layers=1", "model.vocab_size=301"),
    ],
)
@torch.no_grad()
def test_steps_are_the_full_forward_in_every_variant(overrides):
    model, tokens = build(*overrides), tokens_of(3, 75)
    same = assert_same_amplitudes if model.config.sampler.kind == "born" else assert_same_predictions
    same(steps(model, tokens)[0], model(tokens))


@torch.no_grad()
def test_learned_frequencies_weigh_the_steps_and_are_not_counted_there():
    model = build("encoder.kind=transport", "encoder.direct=false", "encoder.frequency_weighting=true")
    model.train()
    model(torch.randint(60, (8, 64)))
    counts = model.encoder.token_counts.clone()
    assert counts.max() > 5
    tokens = tokens_of(2, 40) % 80
    found = steps(model, tokens)[0]
    assert torch.equal(model.encoder.token_counts, counts)
    assert_same_predictions(found, model.eval()(tokens))
    model.encoder.token_counts.zero_()
    assert (model(tokens) - found).abs().max() > 1e-3


@torch.no_grad()
def test_transport_that_stops_early_is_still_the_full_forward():
    transport = "encoder.kind=transport", "encoder.direct=false", "encoder.sinkhorn_tol=1e-9"
    model, tokens = build(*transport, "encoder.sinkhorn_max_iter=2"), tokens_of(1, 50)
    unlimited = build(*transport)
    found = steps(model, tokens)[0]
    assert_same_predictions(found, model(tokens))
    assert (unlimited(tokens).exp() - found.exp()).abs().max() > 1e-5  # the limit is felt


@torch.no_grad()
@pytest.mark.parametrize("kind", ["embedding", "transport"])
@pytest.mark.parametrize("length", [1, 2, 64, 513, 1100])
def test_prefill_is_the_full_forward_and_goes_on_like_steps(length, kind):
    model, tokens = build(f"encoder.kind={kind}"), tokens_of(2, length + 3)
    expected = model(tokens)
    found, state = model.prefill(tokens[:, :length])
    assert_same_predictions(found, expected[:, length - 1])
    found, state = steps(model, tokens[:, length:], state)
    assert_same_predictions(found, expected[:, length:])


@pytest.mark.parametrize("kind", ["embedding", "transport"])
@torch.no_grad()
def test_prompt_may_come_in_any_pieces(kind):
    model, tokens = build(f"encoder.kind={kind}"), tokens_of(2, 120)
    whole, expected = model.prefill(tokens)
    for sizes in ([1] * 120, [100, 20], [3, 1, 116]):
        state = None
        for piece in tokens.split(sizes, 1):
            found, state = model.prefill(piece, state)
        assert_same_predictions(found, whole)
        assert_same_state(state, expected)


@pytest.mark.parametrize("kind", ["embedding", "transport"])
@torch.no_grad()
def test_state_keeps_its_size_and_a_step_its_work(kind):
    model = build(f"encoder.kind={kind}")
    _, early = model.prefill(tokens_of(2, 5))
    _, late = model.prefill(tokens_of(2, 2000))
    assert [t.shape for t in tensors(early)] == [t.shape for t in tensors(late)]
    assert [t.untyped_storage().nbytes() for t in tensors(early)] == [
        t.untyped_storage().nbytes() for t in tensors(late)
    ]
    assert late.encoder.rows.tolist() == [2000, 2000]

    def largest_result(state):
        with torch.profiler.profile(record_shapes=True) as profile:
            model.step(torch.tensor([1, 2]), state)
        events = [event for event in profile.events() if event.input_shapes]
        return max(torch.Size(shape).numel() for event in events for shape in event.input_shapes if shape)

    assert largest_result(early) == largest_result(late)


@torch.no_grad()
def test_rows_of_a_state_go_their_own_ways():
    model, tokens = build(), tokens_of(2, 30)
    _, state = model.prefill(tokens)
    before = [tensor.clone() for tensor in tensors(state)]
    branches = state.rows(torch.tensor([1, 0, 1]))
    found, _ = model.step(torch.tensor([7, 8, 9]), branches)
    texts = torch.cat([tokens[[1, 0, 1]], torch.tensor([[7], [8], [9]])], 1)
    assert_same_predictions(found, model(texts)[:, -1])
    assert all(torch.equal(one, other) for one, other in zip(tensors(state), before, strict=True))


def test_nothing_is_recorded_for_gradients():
    model = build()
    found, state = model.step(torch.tensor([1]), model.init_state(1))
    assert not found.requires_grad and not any(tensor.requires_grad for tensor in tensors(state))


def test_wrong_arguments_are_named():
    model = build()
    with pytest.raises(ValueError, match="batch: expected an integer >= 1, got 0"):
        model.init_state(0)
    with pytest.raises(ValueError, match=r"token: expected shape \[B\], got \[1, 1\]"):
        model.step(torch.tensor([[1]]), model.init_state(1))
    with pytest.raises(ValueError, match="tokens: expected 2 sequences, as in state, got 1"):
        model.step(torch.tensor([1]), model.init_state(2))
    for wrong in (torch.tensor([[1.0]]), torch.zeros(1, 0, dtype=torch.int64), torch.tensor([1])):
        with pytest.raises(ValueError, match=r"tokens: expected int64 \[B, S\]"):
            model.prefill(wrong)
