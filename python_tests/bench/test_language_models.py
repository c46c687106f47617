import math

import pytest
import torch

from sem.bench.language_models import BY_ADAMW, CONTEXT, ENTRANTS, GPT, GRU
from sem.bench.learning import run_config
from sem.config import SEMConfig
from sem.data import IGNORED_TARGET
from sem.training.optim import parameter_groups

VOCABULARY = 260
PEERS = {"gpt": GPT, "gru": GRU}


@pytest.fixture(params=PEERS)
def model(request):
    torch.manual_seed(0)
    return PEERS[request.param](VOCABULARY)


def tokens_of(*shape, seed=0):
    return torch.randint(VOCABULARY, shape, generator=torch.Generator().manual_seed(seed))


def test_probabilities_of_the_next_token_sum_to_one(model):
    log_probabilities = model(tokens_of(2, 9))
    assert log_probabilities.shape == (2, 9, VOCABULARY)
    torch.testing.assert_close(log_probabilities.exp().sum(-1), torch.ones(2, 9))


@torch.no_grad()
@pytest.mark.parametrize("changed", [1, 5, 15])
def test_a_later_token_changes_nothing_before_it_and_something_from_it_on(model, changed):
    tokens = tokens_of(2, 16)
    other = tokens.clone()
    other[:, changed] = (other[:, changed] + 1) % VOCABULARY
    before, after = model(tokens), model(other)
    torch.testing.assert_close(after[:, :changed], before[:, :changed], rtol=0, atol=1e-6)
    assert (after[:, changed] - before[:, changed]).abs().max() > 1e-4


def test_loss_is_the_likelihood_of_the_targets_that_count(model):
    tokens, targets = tokens_of(2, 9), tokens_of(2, 9, seed=1)
    targets[1, 4:] = IGNORED_TARGET
    figures = model(tokens, targets, diagnostics=None)
    counted = targets != IGNORED_TARGET
    picked = model(tokens).gather(-1, targets.clamp_min(0).unsqueeze(-1)).squeeze(-1)[counted]
    torch.testing.assert_close(figures["nll_sum"], -picked.sum())
    torch.testing.assert_close(figures["loss"], -picked.mean())
    assert not figures["nll_sum"].requires_grad
    figures["loss"].backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


@torch.no_grad()
def test_a_new_model_knows_nothing(model):
    figures = model(tokens_of(4, 64), tokens_of(4, 64, seed=1))
    assert float(figures["loss"]) == pytest.approx(math.log(VOCABULARY), rel=0.05)


@pytest.mark.parametrize(("name", "least", "most"), [("gpt", 0.85e6, 0.95e6), ("gru", 1.15e6, 1.25e6)])
def test_sizes_are_those_that_are_stated(name, least, most):
    model = ENTRANTS[name].build(SEMConfig().with_overrides("model.hidden_dim=128"))
    assert least <= sum(parameter.numel() for parameter in model.parameters()) <= most


@pytest.mark.parametrize("name", ["gpt", "gru", "mingru"])
def test_peers_grow_with_the_model_and_take_smaller_steps(name):
    small, large = (SEMConfig().with_overrides(f"model.hidden_dim={width}") for width in (128, 512))
    count = {w: sum(p.numel() for p in ENTRANTS[name].build(c).parameters()) for w, c in ((1, small), (4, large))}
    assert 10 < count[4] / count[1] < 16
    rates = [run_config(config, ENTRANTS[name], 1, 0, 1).training.learning_rate for config in (small, large)]
    assert rates[0] == pytest.approx(2 * rates[1])


@pytest.mark.parametrize("name", ["gpt", "gru", "mingru"])
def test_every_peer_is_there_with_the_models_optimizer_and_with_adamw(name):
    ours, twin = (run_config(SEMConfig(), ENTRANTS[n], 1, 0, 1).training for n in (name, name + BY_ADAMW))
    assert (ours.optimizer, twin.optimizer) == (SEMConfig().training.optimizer, "adamw") == ("muon", "adamw")
    maps = {group["linear_map"] for group in parameter_groups(ENTRANTS[name].build(SEMConfig()), 0.1, maps=True)}
    assert "real" in maps


def test_the_transformer_says_how_far_it_sees():
    with pytest.raises(ValueError, match=f"at most {CONTEXT} positions, got {CONTEXT + 1}"):
        GPT(VOCABULARY)(tokens_of(1, CONTEXT + 1))
