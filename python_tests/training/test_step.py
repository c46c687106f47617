import pytest
import torch
from torch import nn

from sem.activations import layer_parameters
from sem.training.clipping import Clipping
from sem.training.step import training_step


class Squares:
    """Mean squared error; ``power`` below 1 has an infinite gradient at 0."""

    unit = "rows"

    def __init__(self, factor: float = 1.0, power: float = 1.0):
        self.factor, self.power = factor, power
        self.seen = []

    def __call__(self, model, batch, diagnostics):
        self.seen.append(diagnostics)
        inputs, targets = batch
        loss = (model(inputs) - targets).square().mean().pow(self.power) * self.factor
        return {"loss": loss, "error": loss.detach(), "items_sum": len(inputs)}

    def report(self, totals):
        return {"loss": totals["loss"]}


@pytest.fixture
def problem():
    torch.manual_seed(0)
    model = nn.Linear(3, 1)
    return model, torch.randn(8, 3), torch.randn(8, 1)


def adamw(model):
    return torch.optim.AdamW(model.parameters(), lr=0.1)


def chunks(inputs, targets, size):
    return list(zip(inputs.split(size), targets.split(size), strict=True))


@pytest.mark.parametrize("size", [1, 2, 4])
def test_accumulated_step_is_the_whole_batch_step(problem, size):
    model, inputs, targets = problem
    start = {name: value.clone() for name, value in model.state_dict().items()}
    whole = training_step(model, Squares(), [(inputs, targets)], torch.optim.SGD(model.parameters(), 0.1))
    expected = {name: value.clone() for name, value in model.state_dict().items()}
    model.load_state_dict(start)
    result = training_step(model, Squares(), chunks(inputs, targets, size), torch.optim.SGD(model.parameters(), 0.1))
    for name, value in model.state_dict().items():
        torch.testing.assert_close(value, expected[name])
    assert result.totals["loss"] == pytest.approx(whole.totals["loss"])
    assert result.totals["error"] == pytest.approx(whole.totals["loss"])
    assert result.totals["items_sum"] == 8
    assert result.grad_norm == pytest.approx(whole.grad_norm)


def test_clipping_limits_the_update_and_reports_the_norm_before_and_after(problem):
    model, inputs, targets = problem
    before = torch.cat([p.detach().flatten().clone() for p in model.parameters()])
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    clipping = Clipping("norm", 0.01)
    result = training_step(model, Squares(factor=100.0), [(inputs, targets)], optimizer, clipping=clipping)
    after = torch.cat([p.detach().flatten() for p in model.parameters()])
    assert result.grad_norm > 1
    assert result.clipped == {"grad_norm_clipped": pytest.approx(0.01), "clipped_share": 1.0}
    assert (after - before).norm().item() == pytest.approx(0.01, rel=1e-3)


@pytest.mark.parametrize("kind", ["norm", "value", "agc"])
def test_what_is_said_of_clipping_is_what_the_optimizer_saw(problem, kind):
    model, inputs, targets = problem
    before = torch.cat([p.detach().flatten().clone() for p in model.parameters()])
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    result = training_step(model, Squares(), [(inputs, targets)], optimizer, clipping=Clipping(kind, 0.05))
    after = torch.cat([p.detach().flatten() for p in model.parameters()])
    assert result.clipped["grad_norm_clipped"] == pytest.approx((after - before).norm().item(), rel=1e-4)
    assert result.clipped["grad_norm_clipped"] < result.grad_norm
    assert 0 < result.clipped["clipped_share"] <= 1
    assert set(result.totals) == {"loss", "error", "items_sum"}


def test_nothing_is_said_of_clipping_where_there_is_none(problem):
    model, inputs, targets = problem
    for clipping in (Clipping("none", 1.0), Clipping("norm", 0.0)):
        assert training_step(model, Squares(), [(inputs, targets)], adamw(model), clipping=clipping).clipped == {}


@pytest.mark.parametrize(
    ("objective", "error", "words"),
    [
        (Squares(factor=float("nan")), 1.0, "the loss is nan"),
        (Squares(factor=float("inf")), 1.0, "the loss is inf"),
        (Squares(power=0.25), 0.0, "the gradient's norm is"),
    ],
)
@pytest.mark.parametrize("kind", ["norm", "value", "agc"])
@pytest.mark.filterwarnings("error")
def test_non_finite_step_changes_nothing(problem, objective, error, words, kind):
    model, inputs, _ = problem
    optimizer = adamw(model)
    training_step(model, Squares(), [(inputs, model(inputs).detach() + 1)], optimizer)
    parameters = [p.detach().clone() for p in model.parameters()]
    moments = [state["exp_avg"].clone() for state in optimizer.state.values()]
    targets = model(inputs).detach() + error
    result = training_step(model, objective, [(inputs, targets)], optimizer, clipping=Clipping(kind, 1.0))
    assert result.skipped and result.clipped == {}
    assert words in result.problem
    assert all(torch.equal(p, q) for p, q in zip(model.parameters(), parameters, strict=True))
    assert all(torch.equal(s["exp_avg"], m) for s, m in zip(optimizer.state.values(), moments, strict=True))
    assert all(p.grad is None for p in model.parameters())


def test_every_micro_batch_is_measured(problem):
    model, inputs, targets = problem
    objective, recorder = Squares(), object()
    training_step(model, objective, chunks(inputs, targets, 4), adamw(model), diagnostics=recorder)
    assert objective.seen == [recorder, recorder]


def test_errors_name_what_is_missing(problem):
    model, inputs, targets = problem
    with pytest.raises(ValueError, match="micro_batches"):
        training_step(model, Squares(), [], adamw(model))
    with pytest.raises(ValueError, match="expected a 'loss'"):
        training_step(model, lambda *_: {"error": torch.ones(())}, [(inputs, targets)], adamw(model))


@pytest.mark.parametrize(
    "clipping", [Clipping(), Clipping("norm", 0.5), Clipping("value", 0.05), Clipping("agc", 0.01)]
)
def test_statistics_of_gradients_are_those_before_clipping_and_leave_the_step_alone(clipping):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.GELU(), nn.Linear(4, 1))
    start = {name: value.clone() for name, value in model.state_dict().items()}
    batch = [(torch.randn(8, 3), torch.randn(8, 1))]
    plain = training_step(model, Squares(), batch, torch.optim.SGD(model.parameters(), 0.1), clipping=clipping)
    expected = {name: value.clone() for name, value in model.state_dict().items()}
    model.load_state_dict(start)
    optimizer, groups = torch.optim.SGD(model.parameters(), 0.1), layer_parameters(model)
    result = training_step(model, Squares(), batch, optimizer, clipping=clipping, groups=groups)
    assert all(torch.equal(value, expected[name]) for name, value in model.state_dict().items())
    assert (result.totals, result.grad_norm, result.clipped) == (plain.totals, plain.grad_norm, plain.clipped)
    assert plain.gradients == {}
    found = result.gradients
    assert found["0/grad_norm"] ** 2 + found["2/grad_norm"] ** 2 == pytest.approx(result.grad_norm**2, rel=1e-5)
    size = torch.cat([start["2.weight"].flatten(), start["2.bias"]]).norm()
    assert found["2/relative_grad_norm"] == pytest.approx(found["2/grad_norm"] / float(size), rel=1e-5)
    assert ("0/clipped_share" in found) == clipping.active
    if clipping.active:
        assert 0 < max(found["0/clipped_share"], found["2/clipped_share"]) <= 1
