"""What is refused, and in which words: the argument, what was expected, what came."""

import pytest
import torch

from sem.ops import Topology, cayley, laplacian_cg, laplacian_matvec, phase_entropy, state_space

PATH = Topology(3, [(0, 1), (1, 2)])
WAVE = torch.ones(4, 3, dtype=torch.complex64)
WEIGHT = torch.ones(2)
OPERATORS = {
    "laplacian_matvec": (laplacian_matvec, "x", {}),
    "cayley": (cayley, "psi", {"half_dt": 0.1}),
    "laplacian_cg": (laplacian_cg, "b", {"alpha": 1.0}),
}

# argument ("first": the operator's own first argument), value, error, expected words
FOR_EVERY_OPERATOR = [
    ("first", [1.0, 2.0, 3.0], TypeError, "expected a torch.Tensor, got list"),
    ("first", None, TypeError, "expected a torch.Tensor, got NoneType"),
    ("first", WAVE.to(torch.complex128), TypeError, r"expected complex64 .*got torch.complex128.*\.to\("),
    ("first", torch.ones(4, 3, 2, dtype=torch.float64), TypeError, "expected float32 .*got torch.float64"),
    ("first", torch.ones(4, 3, 2, dtype=torch.int64), TypeError, "expected .*float32.* got torch.int64"),
    ("first", torch.ones(4, 3, 2, dtype=torch.bool), TypeError, "expected .*float32.* got torch.bool"),
    ("first", torch.ones(4, 5, dtype=torch.complex64), ValueError, "expected D = 3 .* got 5"),
    ("first", torch.ones(4, 0, dtype=torch.complex64), ValueError, "expected D = 3 .* got 0"),
    ("first", torch.ones((), dtype=torch.complex64), ValueError, r"expected at least 1 dimension.* got shape \[\]"),
    ("first", WAVE.to("meta"), ValueError, "expected device meta.*got cpu"),
    ("edge_weight", [1.0, 1.0], TypeError, "expected a torch.Tensor, got list"),
    ("edge_weight", WEIGHT.double(), TypeError, "expected float32 .*got torch.float64"),
    ("edge_weight", torch.ones(2, dtype=torch.int32), TypeError, "expected float32, .* got torch.int32"),
    ("edge_weight", torch.ones(2, dtype=torch.complex64), TypeError, "expected float32, .* got torch.complex64"),
    ("edge_weight", torch.ones(3), ValueError, r"expected shape \[2\], got \[3\]"),
    ("edge_weight", torch.ones(2, 1), ValueError, r"expected shape \[2\], got \[2, 1\]"),
    ("edge_weight", torch.tensor([1.0, -0.5]), ValueError, "expected values >= 0, got -0.5 at index 1"),
    ("edge_weight", torch.tensor([-torch.inf, 1.0]), ValueError, "expected values >= 0, got -inf at index 0"),
    ("edge_weight", WEIGHT.to("meta"), ValueError, "expected device cpu, .*got meta"),
    ("topology", [(0, 1), (1, 2)], TypeError, "expected a sem.ops.Topology, got list"),
    ("topology", None, TypeError, "expected a sem.ops.Topology, got NoneType"),
]

FOR_ONE_OPERATOR = [
    ("laplacian_matvec", "x", torch.ones(4, 5), ValueError, r"x: expected shape \[..., 3\] .* got \[4, 5\]"),
    ("laplacian_matvec", "x", torch.ones(()), ValueError, r"x: expected shape \[..., 3\] .* got \[\]"),
    ("laplacian_cg", "b", torch.ones(4, 5), ValueError, r"b: expected shape \[..., 3\] .* got \[4, 5\]"),
    ("cayley", "psi", torch.ones(4, 3), ValueError, r"psi: expected complex64 .*\[..., D, 2\].* got .*\[4, 3\]"),
    ("cayley", "psi", torch.ones(4, 3, 3), ValueError, r"psi: expected complex64 .*\[4, 3, 3\]"),
    ("cayley", "psi", torch.ones(2), ValueError, r"psi: expected complex64 .*\[2\]"),
    ("cayley", "psi", torch.ones(4, 5, 2), ValueError, "psi: expected D = 3 .* got 5"),
    ("cayley", "half_dt", "0.1", TypeError, "half_dt: expected a number or a one-element tensor, got str"),
    ("cayley", "half_dt", True, TypeError, "half_dt: expected a number or a one-element tensor, got bool"),
    ("cayley", "half_dt", float("inf"), ValueError, "half_dt: expected a finite number, got inf"),
    ("cayley", "half_dt", torch.tensor(torch.nan), ValueError, "half_dt: expected a finite number, got nan"),
    ("cayley", "half_dt", torch.ones(2), ValueError, r"half_dt: expected one element, got shape \[2\]"),
    ("cayley", "half_dt", torch.tensor(0.1).double(), TypeError, "half_dt: expected float32 .*got torch.float64"),
    ("cayley", "half_dt", torch.tensor(1), TypeError, "half_dt: expected float32, .* got torch.int64"),
    ("cayley", "half_dt", torch.ones((), device="meta"), ValueError, "half_dt: expected device cpu, .*got meta"),
    ("laplacian_cg", "alpha", 0, ValueError, "alpha: expected a finite number > 0, got 0"),
    ("laplacian_cg", "alpha", -1.0, ValueError, "alpha: expected a finite number > 0, got -1.0"),
    ("laplacian_cg", "alpha", torch.tensor(1.0), TypeError, "alpha: expected a number > 0, got Tensor"),
    ("laplacian_cg", "beta", -0.5, ValueError, "beta: expected a finite number >= 0, got -0.5"),
    ("laplacian_cg", "gamma", float("nan"), ValueError, "gamma: expected a finite number >= 0, got nan"),
    *(
        (operator, *case)
        for operator in ("cayley", "laplacian_cg")
        for case in (
            ("tol", 0, ValueError, "tol: expected a finite number > 0, got 0"),
            ("tol", -1e-5, ValueError, "tol: expected a finite number > 0, got -1e-05"),
            ("tol", "1e-5", TypeError, "tol: expected a number > 0, got str"),
            ("tol", float("nan"), ValueError, "tol: expected a finite number > 0, got nan"),
            ("max_iter", -1, ValueError, "max_iter: expected at least 0, got -1"),
            ("max_iter", 2**31, ValueError, "max_iter: expected less than 2.31, got 2147483648"),
            ("max_iter", 10.0, TypeError, "max_iter: expected an int, got float"),
            ("max_iter", True, TypeError, "max_iter: expected an int, got bool"),
            ("on_failure", "shrug", ValueError, "on_failure: expected one of 'ignore', 'warn', 'raise', got 'shrug'"),
        )
    ),
]


def arguments_of(operator):
    function, first, settings = OPERATORS[operator]
    return function, first, {first: WAVE, "edge_weight": WEIGHT, "topology": PATH, **settings}


@pytest.mark.parametrize("operator", OPERATORS)
def test_the_unchanged_arguments_are_fine(operator):
    function, _, arguments = arguments_of(operator)
    assert function(**arguments).shape == WAVE.shape


@pytest.mark.parametrize(("argument", "value", "error", "words"), FOR_EVERY_OPERATOR)
@pytest.mark.parametrize("operator", OPERATORS)
def test_every_operator_refuses_in_words(operator, argument, value, error, words):
    function, first, arguments = arguments_of(operator)
    argument = first if argument == "first" else argument
    # a first argument elsewhere is what the second is compared with
    named = "edge_weight" if isinstance(value, torch.Tensor) and value.is_meta else argument
    with pytest.raises(error, match=f"^{named}: {words}"):
        function(**arguments | {argument: value})


@pytest.mark.parametrize(("operator", "argument", "value", "error", "words"), FOR_ONE_OPERATOR)
def test_one_operator_refuses_in_words(operator, argument, value, error, words):
    function, _, arguments = arguments_of(operator)
    with pytest.raises(error, match=f"^{words}"):
        function(**arguments | {argument: value})


@pytest.mark.parametrize("weight", [torch.nan, torch.inf])
@pytest.mark.parametrize("operator", OPERATORS)
def test_nonfinite_weights_spoil_the_result_visibly(operator, weight):
    function, _, arguments = arguments_of(operator)
    out = function(**arguments | {"edge_weight": torch.tensor([1.0, weight])})
    assert not out.isfinite().all(dim=1).any()


def test_numbers_beyond_floats_and_other_kinds_of_tensors_are_refused():
    graph, psi = Topology.small_world(8, 2), torch.randn(3, 8, dtype=torch.complex64)
    weight = torch.ones(graph.num_edges)
    with pytest.raises(ValueError, match="half_dt: expected a number within the range of floats, got a larger one"):
        cayley(psi, weight, graph, 10**400)
    with pytest.raises(ValueError, match="tol: expected a number within the range of floats"):
        cayley(psi, weight, graph, 0.1, tol=10**400)
    with pytest.raises(TypeError, match="psi: expected a dense tensor, got one of layout torch.sparse_coo"):
        cayley(psi.to_sparse(), weight, graph, 0.1)
    with pytest.raises(TypeError, match="edges: expected pairs of integers"):
        Topology(5, [[None, 1]])
    with pytest.raises(TypeError, match="seed: expected an int, got str"):
        Topology.small_world(8, 2, seed="a")


def test_shapes_are_looked_at_before_anything_is_copied():
    """Expanded tensors of terabytes."""
    graph = Topology.small_world(8, 2)
    weight, huge = torch.ones(graph.num_edges), torch.zeros(1).expand(2**20, 2**20)
    with pytest.raises(ValueError, match="psi: expected D = 8"):
        cayley(torch.zeros(1, dtype=torch.complex64).expand(2**20, 2**20), weight, graph, 0.1)
    with pytest.raises(ValueError, match=r"x: expected shape \[..., 8\]"):
        laplacian_matvec(huge, weight, graph)
    wave = torch.zeros(1, dtype=torch.complex64)
    x, dt = wave.expand(1, 4, 4), torch.ones(1, 4, 2)
    with pytest.raises(ValueError, match=r"into: expected shape \[2, N, 2\]"):
        state_space(x, dt, dt, wave.expand(2, 2**20, 2**20), wave.expand(2, 2, 1), torch.ones(2), torch.ones(2))
    with pytest.raises(ValueError, match=r"dt_mag: expected shape \[1, 4, G\]"):
        state_space(x, huge, dt, wave.expand(2, 1, 2), wave.expand(2, 2, 1), torch.ones(2), torch.ones(2))


def test_blocks_that_begin_between_two_complex_numbers():
    blocks = torch.randn(2 * 64 * 2 + 1)[1:].view(2, 64, 2)
    torch.testing.assert_close(phase_entropy(blocks), phase_entropy(blocks.clone()))
