import random

import numpy as np
import pytest
import torch
from torch import nn

from sem.activations import Block, layers_of, measure
from sem.activations.statistics import LayerStatistics


class Net(nn.Module):
    """Two residual blocks of two branches, dropout and batch norm, random numbers even in evaluation mode."""

    def __init__(self, noise=0.0):
        super().__init__()
        torch.manual_seed(0)
        self.lift = nn.Conv2d(1, 4, 3, padding=1)
        self.blocks = nn.ModuleList(Branches(4) for _ in range(2))
        self.norm = nn.BatchNorm2d(4)
        self.dropout = nn.Dropout(0.5)
        self.activation = nn.GELU()
        self.head = nn.Linear(4, 3)
        self.noise = noise

    def forward(self, images):
        x = self.lift(images)
        for block in self.blocks:
            x = self.activation(self.dropout(block(x)))
        x = self.norm(x)
        return self.head(x.mean((2, 3)) + self.noise * torch.randn(4))


class Branches(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.spectral, self.local = nn.Conv2d(width, width, 5, padding=2), nn.Conv2d(width, width, 1)
        self.scale = nn.Parameter(torch.linspace(0.1, 0.4, width))

    def forward(self, x):
        return x + self.scale[:, None, None] * (self.spectral(x) + self.local(x))


def images(count=11):
    return torch.randn(count, 1, 8, 8, generator=torch.Generator().manual_seed(1))


def assert_close(one, other, but=lambda name: False):
    assert one.keys() == other.keys()
    for name, value in one.items():
        if not but(name):
            assert other[name] == (None if value is None else pytest.approx(value, rel=1e-6, abs=1e-6)), name


@pytest.mark.parametrize("batch_size", [1, 4, 7])
def test_batches_do_not_matter(batch_size):
    model = Net()
    whole, split = (measure(model, images().split(size)) for size in (11, batch_size))
    assert list(whole.layers) == list(split.layers)
    for name, layer in whole.layers.items():
        again = split.layers[name]
        # an order statistic may change its bin where the model's own rounding depends on the batch
        assert_close(layer, again, but=lambda stat: stat.lstrip("p").isdigit())
        assert all(abs(layer[f"p{p}"] - again[f"p{p}"]) <= layer["percentile_error"] for p in (1, 5, 50, 95, 99))


def test_the_same_again_is_the_same_to_the_bit():
    model, batches = Net(noise=0.5), images().split(3)
    torch.manual_seed(5)
    first = measure(model, batches)
    torch.manual_seed(5)
    assert measure(model, batches) == first


def test_layers_come_in_the_order_of_their_calls_each_call_for_itself():
    found = measure(Net(), images().split(4))
    assert list(found.layers) == [
        "lift",
        *("blocks.0.spectral", "blocks.0.local", "blocks.0", "activation"),
        *("blocks.1.spectral", "blocks.1.local", "blocks.1", "activation#2"),
        "norm",
        "head",
    ]
    assert found.layers["activation"]["count"] == found.layers["activation#2"]["count"] == 11 * 4 * 64
    assert found.layers["activation"]["mean"] != found.layers["activation#2"]["mean"]
    assert found.summary.architecture == "Net"
    assert found.summary.parameters == sum(p.numel() for p in Net().parameters())


def test_layers_are_what_the_model_computes():
    model = Net().eval()
    found = measure(model, images().split(4), layers="blocks.0*")
    assert list(found.layers) == ["blocks.0.spectral", "blocks.0.local", "blocks.0"]
    with torch.no_grad():
        values = model.blocks[0](model.lift(images()))
    assert found.layers["blocks.0"]["mean"] == pytest.approx(float(values.double().mean()), rel=1e-6)
    mine = measure(model, images().split(4), layers={"first": model.blocks[0]})
    assert mine.layers == {"first": found.layers["blocks.0"]}


def test_what_hands_on_a_tensor_has_an_entry_only_if_it_is_named():
    class Same(nn.Module):
        def forward(self, x):
            return x

    model = nn.Sequential(nn.Sequential(nn.Linear(8, 8), Same()), nn.ReLU(inplace=True), Same())
    batches = [torch.randn(5, 8)]
    found = measure(model, batches).layers
    assert list(found) == ["0.0", "1"]  # what writes into the tensor of another is no such thing
    assert found["0.0"]["min"] < 0 == found["1"]["min"]
    named = measure(model, batches, layers={"linear": model[0][0], "container": model[0], "all": model}).layers
    assert list(named) == ["linear", "container", "all"]
    assert named["linear"] == named["container"] == found["0.0"] and named["all"] == found["1"]
    assert list(measure(model, batches, layers="(model)").layers) == ["(model)"]
    with torch.inference_mode():
        assert measure(model, batches, layers="1").layers["1"] == found["1"]


def test_whatever_calls_the_model_is_called():
    model = Net()
    pairs = [{"images": images(3), "names": "abc"}]
    found = measure(model, pairs, lambda model, batch: model(batch["images"]), layers="lift")
    assert found == measure(model, [images(3)], layers="lift")


def test_blocks_are_ratios_of_root_mean_squares():
    model = Net()
    blocks = {
        name: Block(body=block, spectral=block.spectral, local=block.local, layerscale=block.scale)
        for name, block in layers_of(model, "blocks.[01]").items()
    }
    found = measure(model, images().split(4), layers="head", blocks=blocks)
    model.eval()
    with torch.no_grad():
        x = model.lift(images())
        for name, block in blocks.items():
            y, spectral, local = block.body(x), block.spectral(x), block.local(x)
            rms = [float(t.double().square().mean().sqrt()) for t in (spectral, local, y - x, x)]
            assert found.blocks[name] == pytest.approx(
                {
                    "spectral_local_ratio": rms[0] / rms[1],
                    "residual_ratio": rms[2] / rms[3],
                    "layerscale_mean": 0.25,
                    "layerscale_min": 0.1,
                    "layerscale_max": 0.4,
                },
                rel=1e-5,
            )
            x = model.activation(y)
    assert measure(model, [images()], blocks={"a": Block(layerscale=torch.tensor([3 + 4j]))}).blocks == {
        "a": {"layerscale_mean": 5.0, "layerscale_min": 5.0, "layerscale_max": 5.0}
    }


def test_a_block_that_does_nothing_and_one_of_zeros():
    class Zero(nn.Module):
        def forward(self, x):
            return 0 * x

    model = nn.Sequential(nn.Identity(), Zero(), Zero())
    blocks = {str(k): Block(body=model[k]) for k in range(3)} | {"pair": Block(spectral=model[0], local=model[1])}
    found = measure(model, [images()], blocks=blocks).blocks
    assert [found[name].popitem()[1] for name in ("0", "1", "2", "pair")] == [0.0, 1.0, None, None]


def state_of(model):
    hooks = sum(len(module._forward_hooks) for module in model.modules())
    state = {name: value.clone() for name, value in model.state_dict().items()}
    return hooks, [module.training for module in model.modules()], torch.get_rng_state(), state


def assert_untouched(model, before):
    after = state_of(model)
    assert before[:2] == after[:2]
    assert torch.equal(before[2], after[2])
    assert all(torch.equal(value, after[3][name]) for name, value in before[3].items())


@pytest.mark.parametrize("training", [True, False])
def test_the_model_and_the_random_generators_are_left_alone(training):
    model = Net(noise=1.0).train(training)
    model.norm.train(not training)
    torch.manual_seed(3)
    before = state_of(model)
    python, numpy = random.getstate(), np.random.get_state()[1].tolist()
    measure(model, images().split(4), blocks={"0": Block(body=model.blocks[0])})
    assert_untouched(model, before)
    assert python == random.getstate() and numpy == np.random.get_state()[1].tolist()
    assert all(parameter.grad is None for parameter in model.parameters())
    assert torch.is_grad_enabled()


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
@pytest.mark.parametrize("last", [2, 5])
def test_an_error_leaves_no_hook_behind(error, last):
    model = Net(noise=1.0)
    before = state_of(model)
    calls = []

    def call(model, batch):
        model(batch)
        calls.append(None)
        if len(calls) == last:  # in the first pass, or the second
            raise error("enough")

    with pytest.raises(error, match="enough"):
        measure(model, images().split(3), call, blocks={"0": Block(body=model.blocks[0])})
    assert_untouched(model, before)


def test_progress_hears_of_each_batch_of_both_passes():
    sizes = []
    measure(Net(), images().split(4), layers="head", progress=lambda batch: sizes.append(len(batch)))
    assert sizes == [4, 4, 3, 4, 4, 3]


def test_what_returns_no_tensor_of_numbers_is_left_out_unless_named():
    class Pair(nn.Module):
        def forward(self, x):
            return x, x

    class Whole(nn.Module):
        def forward(self, x):
            return x.argmax(-1)

    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.pair, self.whole, self.linear, self.idle = Pair(), Whole(), nn.Linear(3, 3), nn.Linear(2, 2)

        def forward(self, x):
            return self.whole(self.linear(self.pair(x)[0]))

    model, batches = Model(), [torch.randn(5, 3)]
    assert list(measure(model, batches).layers) == ["linear"]
    for name, got in (("pair", "got tuple"), ("whole", "got torch.int64"), ("idle", "got none")):
        with pytest.raises(ValueError, match=rf"{name}.*{got}"):
            measure(model, batches, layers={"linear": model.linear, name: getattr(model, name)})


def test_boundary_errors():
    model = Net()
    with pytest.raises(ValueError, match="batches: expected what can be gone through twice, got a generator"):
        measure(model, (batch for batch in images().split(4)))
    with pytest.raises(ValueError, match="batches: expected at least one"):
        measure(model, [])
    with pytest.raises(ValueError, match="layers = 'block.*': expected a pattern of some of .*lift"):
        measure(model, [images()], layers="block.*")
    with pytest.raises(ValueError, match="layer 'lift': layout: expected each axis of .* to be named once"):
        measure(model, [images()], layers="lift", layout=lambda name, output: sem_layout())
    with pytest.raises(ValueError, match="block '0': expected an output of the input's shape"):
        measure(model, [images()], blocks={"0": Block(body=model.lift)})
    with pytest.raises(ValueError, match="spectral and local together or neither, got local alone"):
        Block(local=model.lift)


def sem_layout():
    from sem.activations import Layout

    return Layout(sample=0, channel=1)


class Different:
    """Other batches at every pass."""

    def __init__(self, *passes):
        self.passes = list(passes)

    def __iter__(self):
        return iter(self.passes.pop(0))


def test_two_passes_that_differ_are_an_error():
    short = Different([images()], [images(7)])
    with pytest.raises(ValueError, match="layer 'head': expected the 33 finite values of the first pass, got 21"):
        measure(Net(), short, layers="head")
    with pytest.raises(ValueError, match="layer 'head': expected the values of the first pass, between"):
        measure(Net(), Different([images()], [9 * images()]), layers="head")
    with pytest.raises(ValueError, match="expected at least one in each of two passes"):
        measure(Net(), Different([images()], []), layers="head")


def test_channels_that_change_are_an_error():
    with pytest.raises(ValueError, match="expected 3 channels of 1 parts, as before, got 4 of 1"):
        measure(nn.Identity(), [torch.randn(2, 3), torch.randn(2, 4)])


def test_an_empty_batch_is_no_sample():
    model, batches = Net(), [images(4), images(0), images(4)]
    assert measure(model, batches, layers="lift") == measure(model, batches[::2], layers="lift")
    assert LayerStatistics().statistics() == {"count": 0, "nonfinite": 0}
