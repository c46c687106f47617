"""Between Python and the kernels: fields by name, and what happens when one is wrong."""

from __future__ import annotations

import importlib.util
import re
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch

from sem import native
from sem.ops import Topology, cayley, kernels, scan
from sem.ops.exit_waves import exit_waves_forward
from sem.ops.registration import Operator
from sem.ops.testing import composed_on_cpu_tensors

pytestmark = [pytest.mark.own_backend]
ROOT = Path(__file__).parents[2]
CPU = native.backend("cpu")
DTYPES = {name: getattr(torch, name) for name in ("float32", "float64", "int32", "int8", "bool")}
every_kernel = pytest.mark.parametrize("name", CPU.FIELDS)


def fields_of_ones(name):
    """Every size is 1, every array has one element: wrong for most, which is told in the order of the fields."""
    numbers = {"int": 1, "float": 1.0, "bool": True}
    graph = Topology(1, []).packed(torch.device("cpu"))
    return {
        field: graph if field == "graph" else numbers[kind] if kind in numbers else torch.ones(1, dtype=DTYPES[kind])
        for field, kind, _, _ in CPU.FIELDS[name]
    }


def call(name, fields):
    getattr(CPU, name)(0, 0, 1, None, **fields)


@every_kernel
def test_a_missing_field_is_named(name):
    kernel = re.sub(r"_reference(_[a-z]+)_float\d+$", r"\1", name)
    for field, _, _, optional in CPU.FIELDS[name]:
        if optional:
            continue
        given = {other: value for other, value in fields_of_ones(name).items() if other != field}
        with pytest.raises(TypeError, match=f"^{kernel}: (missing )?field '"):
            call(name, given)
    first = CPU.FIELDS[name][0][0]
    del (given := fields_of_ones(name))[first]
    with pytest.raises(TypeError, match=f": missing field '{first}'$"):
        call(name, given)


@every_kernel
def test_a_field_of_another_dtype_or_type_is_named(name):
    for field, kind, _, _ in CPU.FIELDS[name]:
        wrong = "one" if kind in ("int", "float", "bool") else torch.ones(1, dtype=torch.complex64)
        with pytest.raises(TypeError, match=f"field '{field}': expected a (number|tensor of {kind}), got|field '"):
            call(name, fields_of_ones(name) | {field: wrong})


def laplacian_matvec_fields():
    graph = Topology(3, [(0, 1), (1, 2)])
    x = torch.tensor([[[1.0], [4.0], [10.0]]])
    return {
        "rows": 1,
        "nodes": 3,
        "components": 1,
        "graph": graph.packed(x.device),
        "edge_weight": torch.tensor([2.0, 3.0]),
        "x": x,
        "signed_weight": False,
        "out": torch.empty_like(x),
    }


def test_fields_in_any_order_and_under_names_made_at_run_time_give_the_result():
    given = laplacian_matvec_fields()
    shuffled = {"".join(list(name)): given[name] for name in sorted(given, reverse=True)}
    call("laplacian_matvec_forward", shuffled)
    assert given["out"].flatten().tolist() == [-6.0, -12.0, 18.0]


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"typo": 1}, TypeError, "laplacian_matvec_forward: unknown field 'typo'"),
        ({"x": torch.ones(1, 4, 1)}, TypeError, "laplacian_matvec_forward: field 'x': expected 3 numbers, got 4"),
        ({"rows": 2}, TypeError, "laplacian_matvec_forward: field 'x': expected 6 numbers, got 3"),
        ({"x": torch.ones(1, 3, 1).double()}, TypeError, "field 'x': expected a tensor of float32, got torch.float64"),
        ({"x": torch.ones(1, 3, 2)[..., :1]}, TypeError, "field 'x': expected a contiguous tensor"),
        ({"graph": torch.ones(5, dtype=torch.int32)}, TypeError, "field 'graph': 5 numbers are no graph of 3 nodes"),
        ({"out": None}, TypeError, "field 'out': expected a tensor of float32, got NoneType"),
        (
            {"edge_weight": torch.tensor([2.0, -3.0])},
            ValueError,
            "edge_weight: expected values >= 0, got -3 at index 1",
        ),
    ],
)
def test_what_is_wrong_with_a_field_is_said(change, error, message):
    with pytest.raises(error, match=re.escape(message) + "$"):
        call("laplacian_matvec_forward", laplacian_matvec_fields() | change)


def test_positional_fields_are_refused():
    with pytest.raises(TypeError, match="expected handle, device, threads and allocate, then fields by name"):
        CPU.laplacian_matvec_forward(0, 0, 1)


def test_operators_and_their_kernels_agree_on_the_fields():
    operators = [value for value in vars(torch.ops.sem).values() if hasattr(value, "default")]
    assert len(operators) >= 22
    for packet in operators:
        schema = packet.default._schema
        name = schema.name.removeprefix("sem::")
        declared = {field: written for field, _, written, _ in CPU.FIELDS[name]}
        for output in schema.returns:
            assert declared[output.name], (name, output.name)
        inputs = {argument.name for argument in schema.arguments}
        read = {field for field, kind, written, _ in CPU.FIELDS[name] if not written and kind in DTYPES}
        assert read <= inputs | {"polarised", "onto"}, name  # given by sizes


def test_stubs_are_what_the_kernels_declare():
    spec = importlib.util.spec_from_file_location("native_stubs", ROOT / "tools" / "native_stubs.py")
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    for path, text in tool.stubs(CPU).items():
        assert path.read_text() == text, f"{path.name}: run python tools/native_stubs.py"


def test_a_call_costs_no_dispatch_in_eager_mode(monkeypatch):
    graph, psi = Topology.small_world(8, 4), torch.randn(2, 8, dtype=torch.complex64)
    monkeypatch.setattr(Operator, "op", property(lambda self: pytest.fail("dispatched")), raising=False)
    assert cayley(psi, torch.ones(graph.num_edges), graph, 0.1).shape == (2, 8)


def test_a_subclass_of_tensor_goes_through_the_dispatcher():
    class Counted(torch.Tensor):
        pass

    x, dt, rate = torch.randn(1, 3, 4, dtype=torch.complex64), torch.ones(1, 3, 2), torch.ones(4)
    plain, _ = scan(x, dt, dt, rate, rate)
    counted, _ = scan(x.as_subclass(Counted), dt, dt, rate, rate)
    assert torch.equal(counted.as_subclass(torch.Tensor), plain)


def test_cpu_tensors_stand_in_for_no_device_outside_the_tests():
    assert kernels.on_cpu(torch.ones(1))


class Elsewhere:
    is_cpu = False

    def __init__(self, device_type):
        self.device = torch.device(device_type)


def test_where_there_is_a_kernel(monkeypatch):
    built = {"cpu": True, "cuda": True, "xpu": False}
    monkeypatch.setattr(native, "is_built", built.__getitem__)
    kernels._device_has.cache_clear()
    try:
        assert kernels.has("overlap_add", Elsewhere("cuda")) and not kernels.has("overlap_add", Elsewhere("xpu"))
        assert not kernels.has("wave_gate_forward", Elsewhere("cuda"))
        assert kernels.has("wave_gate_forward", torch.ones(1))
        with composed_on_cpu_tensors():
            assert not kernels.has("overlap_add", torch.ones(1))
    finally:
        kernels._device_has.cache_clear()


@pytest.mark.parametrize("composes", [False, True])
def test_an_operator_is_composed_where_there_is_no_kernel(monkeypatch, composes):
    given, composed = (torch.ones(2, 2, 2), torch.ones(1, 1, 1, 1, 2), torch.zeros(3, 2, dtype=torch.int32)), []
    monkeypatch.setattr(exit_waves_forward, "_composed", lambda *args: composed.append(args))
    with composed_on_cpu_tensors() if composes else nullcontext():
        out = exit_waves_forward(*given)
    assert composed == [given] if composes else out.shape == (3, 1, 1, 1, 2) and not composed
