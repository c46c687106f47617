"""Every operator under what torch does to functions, in every mode of autograd, on tensors of every layout.

A cell is a column (what is done to the operator), an operator, a mode and a layout of its inputs:

- columns that leave a function with the operator's results: eager, compile, compile_dynamic, export, functional_call,
  checkpoint_reentrant, checkpoint, deepcopy, pickle;
- columns that change it: func_grad, jacrev, vmap, vmap_empty (the meta device is in test_meta_and_inference.py);
- modes: grad, no_grad, inference_mode, and inference_mode first and training after;
- layouts: plain, duplicated (one tensor for two arguments, where two can be of one shape), conjugate and negative bit,
  strided, expanded, one float off in memory.

Eager has every layout in every mode. The other columns have plain and duplicated ones, and no inference_mode by itself,
since inference_mode_then_training begins with it; compile, which takes a second a cell, has fewer (``_exists``).

Back ends: the CPU's kernels; the compositions of torch's operations that other devices use; the XPU kernels on a SYCL
CPU device where they are built (not the columns that compile).

What a cell returns is held against the float64 twin and, where a kernel computes it, against the bits of the plain
eager call. An operator of torch alone refuses some columns (``REFUSED``). ``pytest --collect-only`` counts the cells.
"""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from functools import cache

import pytest
import torch
from layouts import (
    LAYOUTS,
    MODES,
    Apply,
    Views,
    cotangent,
    double,
    in_mode,
    plain,
    relative_error,
    same_bits,
    with_gradients,
)
from operator_problems import Problem
from operators import BY_NAME, OPERATORS, Layer, Operator
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from sem import native

pytestmark = [
    pytest.mark.own_backend,
    pytest.mark.filterwarnings("ignore:None of the inputs have requires_grad"),  # a reentrant checkpoint in inference
]

# Largest relative error of a value or a gradient; a device's sums are its own.
ACCURACY = {"cpu": 1e-5, "composed": 1e-5, "sycl": 1e-4}
needs_xpu_kernels = pytest.mark.skipif(not native.is_built("xpu"), reason="no XPU kernels are built: make sycl-check")

REFUSED = {
    "export": (Exception, "Could not guard on data-dependent expression"),
    "func_grad": (RuntimeError, "must override the setup_context staticmethod"),
    "jacrev": (RuntimeError, "must override the setup_context staticmethod"),
    "vmap": (RuntimeError, "data-dependent control flow"),
    "vmap_empty": (RuntimeError, "data-dependent control flow"),
}
"""What a solve in plain torch, which looks at its residuals, says in these columns."""


@contextmanager
def _backend(name: str) -> Iterator[str]:
    from sem.ops import testing

    contexts = {"sycl": "xpu_kernels_on_cpu_tensors", "composed": "composed_on_cpu_tensors"}
    with getattr(testing, contexts[name])() if name in contexts else nullcontext():
        yield name


@pytest.fixture
def backend(request):
    with _backend(request.param) as name:
        yield name


# Columns whose result is a function like the operator.


def _eager(operator: Operator, problem: Problem) -> Apply:
    function = operator.on(problem)
    return lambda views: (function(*views), views)


def _compile(operator: Operator, problem: Problem) -> Apply:
    torch.compiler.reset()
    function = torch.compile(operator.on(problem), fullgraph=not operator.plain_torch, backend="aot_eager")
    return lambda views: (function(*views), views)


def _compile_dynamic(operator: Operator, problem: Problem) -> Apply:
    """Called with another number of rows first, and not compiled again for the problem's own."""
    torch.compiler.reset()
    function = torch.compile(
        operator.on(problem), fullgraph=not operator.plain_torch, dynamic=True, backend="aot_eager"
    )

    def apply(views: Views) -> tuple[tuple[Tensor, ...], Views]:
        differentiable = views[0].requires_grad
        function(*(tensor.requires_grad_(differentiable) for tensor in operator.plain(11).tensors.values()))
        with nullcontext() if operator.plain_torch else torch.compiler.set_stance("fail_on_recompile"):
            return function(*views), views

    return apply


def _export(operator: Operator, problem: Problem) -> Apply:
    layer = Layer(operator, problem)
    exported = torch.export.export(layer, (next(iter(problem.tensors.values())),)).module()
    parameters = dict(exported.named_parameters())
    return lambda views: (exported(views[0]), [views[0], *(parameters[name] for name in layer.rest)])


def _functional_call(operator: Operator, problem: Problem) -> Apply:
    """In place of parameters that the layer has been called with before."""
    layer = Layer(operator, problem)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.mul_(1.5)

    def apply(views: Views) -> tuple[tuple[Tensor, ...], Views]:
        layer(views[0].detach())
        given = dict(zip(layer.rest, views[1:], strict=True))
        return torch.func.functional_call(layer, given, (views[0],)), views

    return apply


def _checkpoint(reentrant: bool) -> Callable[[Operator, Problem], Apply]:
    def column(operator: Operator, problem: Problem) -> Apply:
        function = operator.on(problem)
        return lambda views: (checkpoint(function, *views, use_reentrant=reentrant), views)

    return column


def _copied(copied: Callable[[Layer], Layer]) -> Callable[[Operator, Problem], Apply]:
    def column(operator: Operator, problem: Problem) -> Apply:
        layer = copied(Layer(operator, problem))
        return lambda views: (layer(views[0]), [views[0], *(getattr(layer, name) for name in layer.rest)])

    return column


COLUMNS = {
    "eager": _eager,
    "compile": _compile,
    "compile_dynamic": _compile_dynamic,
    "export": _export,
    "functional_call": _functional_call,
    "checkpoint_reentrant": _checkpoint(True),
    "checkpoint": _checkpoint(False),
    "deepcopy": _copied(copy.deepcopy),
    "pickle": _copied(lambda layer: pickle.loads(pickle.dumps(layer))),
}
COMPILING = ("compile", "compile_dynamic", "export")
TRANSFORMED = ("func_grad", "jacrev", "vmap", "vmap_empty")


def _exists(backend: str, column: str, operator: Operator, mode: str, layout: str) -> bool:
    if layout == "duplicated" and operator.duplicated is None:
        return False
    if layout == "conjugate_bit" and not any(t.is_complex() for t in operator.plain().tensors.values()):
        return False
    if column != "eager" and (layout not in ("plain", "duplicated") or mode == "inference_mode"):
        return False
    if backend == "sycl" and (operator.composed or operator.plain_torch or column in COMPILING):
        return False
    if backend == "composed" and (not operator.composed or column in ("deepcopy", "pickle", "export")):
        return False
    if column == "compile":
        if operator.plain_torch or backend == "composed":  # every iteration, every operation is compiled by itself
            return mode == "inference_mode_then_training" and layout == "plain"
        return mode != "grad" if layout == "plain" else mode == "grad"
    if column == "compile_dynamic":
        every_mode = backend == "cpu" and not operator.plain_torch
        return layout == "plain" and (mode == "grad" or (mode == "no_grad" and every_mode))
    return True


def _cells(columns: tuple[str, ...]) -> pytest.MarkDecorator:
    every = (
        (backend, column, operator, mode, layout)
        for backend in ACCURACY
        for column in columns
        for operator in OPERATORS
        for mode in MODES
        for layout in LAYOUTS
    )
    cells = [
        pytest.param(*cell, id="-".join(map(str, cell)), marks=needs_xpu_kernels if cell[0] == "sycl" else ())
        for cell in every
        if _exists(*cell)
    ]
    return pytest.mark.parametrize("backend, column, operator, mode, layout", cells, indirect=["backend"])


@_cells(tuple(COLUMNS))
def test_a_function_like_the_operator(backend, column, operator, mode, layout):
    problem = _problem(operator, layout)

    def make(differentiable: bool) -> Views:
        return _views(operator, problem, layout, differentiable)

    if operator.plain_torch and column in REFUSED:
        with pytest.raises(REFUSED[column][0], match=REFUSED[column][1]):
            in_mode(COLUMNS[column](operator, problem), make, mode)
        return
    apply = COLUMNS[column](operator, problem)
    try:
        calls = in_mode(apply, make, mode)
    except RuntimeError as error:
        # never a gradient that is silently missing: an exported program has one, or says that it has none
        if column != "export" or "no autograd formula was registered" not in str(error):
            raise
        calls = in_mode(apply, make, "no_grad")
    for outputs, gradients in calls:
        # torch may compute its own operations with other bits when it compiles them
        bits = not operator.plain_torch and not (operator.torch_first and column in COMPILING)
        _hold(backend, operator, layout, outputs, gradients, bits)


@pytest.mark.parametrize("dynamic", [None, True])
def test_a_solve_in_torch_is_not_one_graph(dynamic):
    """How often it goes round depends on what it finds, and so it says, rather than stumble over an argument."""
    operator = BY_NAME["cg_solve"]
    problem = operator.plain()
    torch.compiler.reset()
    function = torch.compile(operator.on(problem), fullgraph=True, dynamic=dynamic, backend="aot_eager")
    with pytest.raises(Exception, match="data-dependent"):
        function(*problem.tensors.values())


@_cells(TRANSFORMED)
def test_a_transformation_of_the_operator(backend, column, operator, mode, layout):
    problem = _problem(operator, layout)
    if operator.plain_torch:
        with pytest.raises(REFUSED[column][0], match=REFUSED[column][1]):
            TRANSFORMATIONS[column](backend, operator, problem, layout)
        return
    if mode == "no_grad":
        with torch.no_grad():
            TRANSFORMATIONS[column](backend, operator, problem, layout)
    if mode.startswith("inference_mode"):
        with torch.inference_mode():
            TRANSFORMATIONS[column](backend, operator, problem, layout)
    if mode in ("grad", "inference_mode_then_training"):
        TRANSFORMATIONS[column](backend, operator, problem, layout)


def _func_grad(backend: str, operator: Operator, problem: Problem, layout: str) -> None:
    tensors = _views(operator, problem, layout, False)
    gradients = _all_gradients(operator.on(problem))(*tensors)
    with torch.inference_mode(False), torch.enable_grad():
        leaves = [double(tensor).clone().requires_grad_() for tensor in problem.tensors.values()]
        exact = torch.autograd.grad(_real_loss(operator.twin_on(problem)(*leaves)), leaves)
    for name, value, truth in zip(problem.tensors, gradients, exact, strict=True):
        assert relative_error(value, truth) <= ACCURACY[backend], name


def _jacrev(backend: str, operator: Operator, problem: Problem, layout: str) -> None:
    """Of the first outputs by the smooth argument, which a duplicated problem may know by another name."""
    tensors, at = list(problem.tensors.values()), list(problem.tensors).index(_smooth(operator, problem))

    def real_outputs(function: Callable[..., tuple[Tensor, ...]], others: list[Tensor]) -> Callable[[Tensor], Tensor]:
        def of(tensor: Tensor) -> Tensor:
            outputs = function(*others[:at], tensor, *others[at + 1 :])
            return torch.cat([_real(out).flatten()[:4] for out in outputs])

        return of

    value = torch.func.jacrev(real_outputs(operator.on(problem), tensors))(tensors[at])
    with torch.inference_mode(False), torch.enable_grad():
        wide = [double(tensor).clone() for tensor in tensors]
        exact = torch.autograd.functional.jacobian(real_outputs(operator.twin_on(problem), wide), wide[at])
    assert relative_error(value, exact) <= ACCURACY[backend]


def _vmap(backend: str, operator: Operator, problem: Problem, layout: str) -> None:
    """Over every tensor, over the first alone along its last dimension, and over every gradient."""
    function, shared = operator.on(problem), list(problem.tensors.values())
    batch = [[tensor * factor for tensor in shared] for factor in (1.0, 0.75)]
    together = [torch.stack(tensors) for tensors in zip(*batch, strict=True)]
    last = (shared[0].dim(), *(None for _ in shared[1:]))
    every = [function(*tensors) for tensors in batch]
    of_first = [function(tensors[0], *shared[1:]) for tensors in batch]
    gradients = _all_gradients(function)
    for found, expected in (
        (torch.vmap(function)(*together), every),
        (torch.vmap(function, last)(together[0].movedim(0, -1), *shared[1:]), of_first),
        (torch.vmap(gradients)(*together), [gradients(*tensors) for tensors in batch]),
    ):
        for values, each in zip(found, zip(*expected, strict=True), strict=True):
            if backend == "composed" or operator.torch_first:
                assert relative_error(values, torch.stack(each)) <= ACCURACY[backend]
            else:
                assert same_bits(values, torch.stack(each))


def _vmap_empty(backend: str, operator: Operator, problem: Problem, layout: str) -> None:
    function, shared = operator.on(problem), list(problem.tensors.values())
    none = [tensor.new_empty(0, *tensor.shape) for tensor in shared]
    first = (0, *(None for _ in shared[1:]))
    outputs = function(*shared)

    def gradients(*tensors: Tensor) -> tuple[Tensor, ...]:  # by cotangents: torch's own sum refuses an empty batch
        values, pull_back = torch.func.vjp(function, *tensors)
        return pull_back(tuple(map(torch.ones_like, values)))

    for found, one in (
        (torch.vmap(function)(*none), outputs),
        (torch.vmap(function, first)(none[0], *shared[1:]), outputs),
        (torch.vmap(gradients)(*none), shared),
        (torch.vmap(gradients, first)(none[0], *shared[1:]), shared),
    ):
        for value, like in zip(found, one, strict=True):
            assert value.shape == (0, *like.shape) and value.dtype == like.dtype


TRANSFORMATIONS = {"func_grad": _func_grad, "jacrev": _jacrev, "vmap": _vmap, "vmap_empty": _vmap_empty}


def _problem(operator: Operator, layout: str) -> Problem:
    """With a graph of its own, which nothing has been computed with."""
    if layout == "duplicated":
        assert operator.duplicated is not None
        return operator.duplicated()
    problem = operator.plain()
    if layout == "expanded":
        spread = _views(operator, problem, layout, False)
        tensors = {name: view.contiguous() for name, view in zip(problem.tensors, spread, strict=True)}
        return Problem(tensors, problem.arguments, problem.graph)
    return problem


def _views(operator: Operator, problem: Problem, layout: str, differentiable: bool) -> Views:
    views = []
    for name, tensor in problem.tensors.items():
        keep = layout == "expanded" and operator.one_row is not None and name not in operator.one_row
        leaf, view = (plain if keep else LAYOUTS[layout])(tensor)
        views.append(view(leaf.requires_grad_(differentiable)))
    return views


def _hold(backend: str, operator: Operator, layout: str, outputs: Views, gradients: Views | None, bits: bool) -> None:
    """Against the twin, and against the plain call."""
    values_of = layout if layout in ("duplicated", "expanded") else "plain"
    truth, exact_gradients = _exact(operator.name, values_of)
    assert all(output.dtype in (torch.float32, torch.complex64) for output in outputs)
    for value, exact in zip(outputs, truth, strict=True):
        assert relative_error(value, exact) <= ACCURACY[backend]
    names = _problem(operator, values_of).tensors
    for name, value, exact in zip(names, gradients or (), exact_gradients if gradients else (), strict=False):
        # a scalar's gradient is one sum, of which little may be left: 0.19 of terms of 13 for soliton_step's half_dt
        left = min(1.0, float(exact.abs())) if exact.ndim == 0 else 1.0
        assert left * relative_error(value, exact) <= ACCURACY[backend], name
    if not bits or backend == "composed":
        return
    eager_outputs, eager_gradients = _eager_results(backend, operator.name, values_of)
    assert all(map(same_bits, outputs, eager_outputs))
    assert gradients is None or all(map(same_bits, gradients, eager_gradients))


@cache
def _exact(operator_name: str, values_of: str) -> tuple[Views, Views]:
    operator = BY_NAME[operator_name]
    problem = _problem(operator, values_of)
    twin = operator.twin_on(problem)
    leaves = [double(tensor).clone().requires_grad_() for tensor in problem.tensors.values()]
    return with_gradients(lambda views: (twin(*views), views), leaves)


@cache
def _eager_results(backend: str, operator_name: str, values_of: str) -> tuple[Views, Views]:
    operator = BY_NAME[operator_name]
    problem = _problem(operator, values_of)
    return with_gradients(_eager(operator, problem), _views(operator, problem, "plain", True))


def _smooth(operator: Operator, problem: Problem) -> str:
    return operator.smooth if operator.smooth in problem.tensors else list(problem.tensors)[-1]


def _real(tensor: Tensor) -> Tensor:
    return torch.view_as_real(tensor) if tensor.is_complex() else tensor


def _real_loss(outputs: tuple[Tensor, ...]) -> Tensor:
    """Not linear, so that its gradient depends on the outputs. In one sum: over an empty batch torch cannot add two."""
    return torch.cat([(_real(output).square() * _real(cotangent(output))).flatten() for output in outputs]).sum()


def _all_gradients(function: Callable[..., tuple[Tensor, ...]]) -> Callable[..., tuple[Tensor, ...]]:
    def of(*tensors: Tensor) -> tuple[Tensor, ...]:
        every = tuple(range(len(tensors)))
        return torch.func.grad(lambda *given: _real_loss(function(*given)), every)(*tensors)

    return of
