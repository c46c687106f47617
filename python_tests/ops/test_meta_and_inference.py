"""Graphs, layers and models made or first used where tensors are not ordinary: on meta, in inference mode."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import replace

import pytest
import torch
from layouts import MODES, in_mode, same_bits, with_gradients
from operator_problems import ring, small_world
from operators import OPERATORS, Layer

from sem.config import SEMConfig
from sem.model import SEMModel
from sem.ops import Topology

GRAPHS = {
    "small_world": small_world,
    "ring": lambda: ring(9),
    "edges in a tensor": lambda: Topology(9, torch.tensor([(1, 0), (2, 3)], device="cpu")),
    "no edges": lambda: Topology(9, []),
}
KERNELS = [operator for operator in OPERATORS if not operator.plain_torch]
ON_GRAPHS = [operator for operator in KERNELS if operator.plain().graph is not None]
PROBLEMS = [(op, kind) for op in KERNELS for kind in ("plain", "duplicated") if getattr(op, kind) is not None]
on_graphs = pytest.mark.parametrize("operator", ON_GRAPHS, ids=str)
modes = pytest.mark.parametrize("mode", MODES)


@contextmanager
def default_device_meta():
    torch.set_default_device("meta")
    try:
        yield
    finally:
        torch.set_default_device(None)


on_meta = pytest.mark.parametrize(
    "on_meta", [lambda: torch.device("meta"), default_device_meta], ids=["with", "default"]
)


def applied(layer):
    return lambda views: (layer(views[0]), [views[0], *(getattr(layer, name) for name in layer.rest)])


def first_of(problem, device="cpu"):
    tensor = next(iter(problem.tensors.values()))
    return lambda differentiable: [tensor.detach().clone().to(device).requires_grad_(differentiable)]


@modes
@pytest.mark.parametrize("operator, kind", PROBLEMS, ids=str)
def test_the_meta_device_has_shapes_for_results(operator, kind, mode):
    problem = getattr(operator, kind)()
    layer = Layer(operator, problem)
    expected = with_gradients(applied(layer), first_of(problem)(True))
    for outputs, gradients in in_mode(applied(layer.to("meta")), first_of(problem, "meta"), mode):
        for values, wanted in ((outputs, expected[0]), (gradients or (), expected[1] if gradients else ())):
            assert [(v.device.type, v.dtype, v.shape) for v in values] == [("meta", w.dtype, w.shape) for w in wanted]


@on_meta
@pytest.mark.parametrize("make", GRAPHS.values(), ids=GRAPHS.keys())
def test_a_graph_made_where_tensors_are_on_meta_is_a_graph(make, on_meta):
    expected = make()
    with on_meta():
        graph = make()
    assert graph.edges.device.type == "cpu" and torch.equal(graph.edges, expected.edges)
    assert torch.equal(graph.degree, expected.degree)
    assert repr(graph) == repr(expected)


@on_meta
@on_graphs
def test_a_layer_made_on_meta_computes_once_it_has_its_parameters(operator, on_meta):
    problem = operator.plain()
    expected = Layer(operator, problem)
    with on_meta():
        graph = small_world()
        shapes = {name: torch.empty_like(tensor, device="meta") for name, tensor in problem.tensors.items()}
        layer = Layer(operator, replace(problem, tensors=shapes, graph=graph))
    layer = layer.to_empty(device="cpu")
    layer.load_state_dict(expected.state_dict())
    for found, wanted in zip(results(layer, problem), results(expected, problem), strict=True):
        assert all(map(same_bits, found, wanted))


@on_meta
def test_a_model_made_on_meta_computes_once_it_has_its_parameters(on_meta):
    config = SEMConfig.from_dict(
        {
            "model": {"hidden_dim": 32, "num_layers": 2, "max_seq_length": 64},
            "encoder": {"sdr_candidates": 48, "sdr_sparsity": 12},
            "spinor": {"state_dim": 4, "mimo_groups": 4},
        }
    )
    torch.manual_seed(0)
    expected = SEMModel(config).eval()
    with on_meta():
        model = SEMModel(config).eval()
    assert all(tensor.device.type == "meta" for tensor in model.parameters())
    model = model.to_empty(device="cpu")
    for tensor in model.buffers():
        tensor.zero_()  # so that what is left of unwritten memory is never right by chance
    model.load_state_dict(expected.state_dict())
    tokens = torch.arange(32).reshape(2, 16)
    assert same_bits(model(tokens), expected(tokens))


@on_graphs
def test_a_graph_made_in_inference_mode_serves_in_training(operator):
    problem = operator.plain()
    expected = results(Layer(operator, problem), problem)
    with torch.inference_mode():
        graph = small_world()
    found = results(Layer(operator, replace(problem, graph=graph)), problem)
    assert all(map(same_bits, found[0] + found[1], expected[0] + expected[1]))


@on_graphs
def test_a_graph_first_used_on_a_device_in_inference_mode_serves_there_in_training(operator):
    """The graph's copy on the device is made at its first use; meta stands for the device."""
    problem = replace(operator.plain(), graph=small_world())
    layer = Layer(operator, problem).to("meta")
    with torch.inference_mode():
        layer(first_of(problem, "meta")(False)[0])
    outputs, gradients = with_gradients(applied(layer), first_of(problem, "meta")(True))
    assert all(tensor.device.type == "meta" for tensor in (*outputs, *gradients))


def results(layer, problem):
    return with_gradients(applied(layer), first_of(problem)(True))
