import pytest
import torch
from helpers import generator, graph, rows, weights

from sem.ops import SolveError, cayley, pit, reference, soliton_step
from sem.ops.soliton_step import soliton_step_backward, soliton_step_forward

A = 0.2


def problem(tokens=17, nodes=64):
    topology = graph(nodes)
    inputs = [
        rows(tokens, nodes) + 0.7,  # phases that bunch
        0.5 * torch.randn(nodes, generator=generator(1)),
        torch.tensor(0.5),
        weights(topology),
        torch.tensor(A),
    ]
    return topology, inputs, rows(tokens, nodes, seed=3)


def in_turn(psi, kerr, strength, weight, topology, half_dt, tol=1e-5, max_iter=50, **options):
    turned = pit(psi, None, strength, options.pop("num_bins", 32), options.pop("rule", "score"), kerr=kerr)
    return cayley(turned, weight, topology, half_dt, tol, max_iter, **options)


def results(function, topology, inputs, direction, **options):
    inputs = [tensor.detach().clone().requires_grad_() for tensor in inputs]
    out = function(*inputs[:4], topology, inputs[4], **options)
    return out.detach(), *torch.autograd.grad((direction.conj() * out).real.sum(), inputs)


@pytest.mark.cpu_only  # on a device they share launches
@pytest.mark.parametrize("rule", ["score", "density_ratio"])
@pytest.mark.parametrize(("tokens", "nodes"), [(0, 17), (1, 2), (17, 64), (5, 256), (40, 33)])
def test_bits_are_those_of_the_two_operators_in_turn(tokens, nodes, rule):
    topology, inputs, direction = problem(tokens, nodes)
    for a, b in zip(
        results(soliton_step, topology, inputs, direction, rule=rule, num_bins=16),
        results(in_turn, topology, inputs, direction, rule=rule, num_bins=16),
        strict=True,
    ):
        assert torch.equal(a, b)


@pytest.mark.parametrize("to_weights", [True, False])
def test_opcheck(to_weights):
    topology, (psi, kerr, strength, weight, half_dt), direction = problem(5, 9)
    blocks, grad = torch.view_as_real(psi).contiguous(), torch.view_as_real(direction).contiguous()
    shared, options = (kerr, strength, weight, half_dt, topology.packed(psi.device)), (16, 0, 1e-5, 50)
    torch.library.opcheck(soliton_step_forward.op, (blocks, *shared, *options, "ignore"))
    out = soliton_step_forward(blocks, *shared, *options, "ignore")[0]
    torch.library.opcheck(soliton_step_backward.op, (blocks, out, grad, *shared, *options, to_weights))


def test_values_and_gradients_match_the_float64_twin():
    topology, inputs, direction = problem()
    wide = [tensor.to(torch.promote_types(tensor.dtype, torch.float64)) for tensor in inputs]
    expected = results(reference.soliton_step, topology, wide, direction.to(torch.complex128))
    for actual, exact in zip(results(soliton_step, topology, inputs, direction, tol=1e-6), expected, strict=True):
        assert torch.linalg.vector_norm(actual - exact) <= 2e-5 * torch.linalg.vector_norm(exact)


def test_only_the_ends_are_kept():
    topology, inputs, _ = problem(40)
    inputs = [tensor.requires_grad_() for tensor in inputs]
    kept = {}

    def keep(tensor):
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        out = soliton_step(*inputs[:4], topology, inputs[4])
    large = [bytes_kept for bytes_kept in kept.values() if bytes_kept >= out.nbytes]
    assert len(large) == 2
    assert out.untyped_storage().data_ptr() in kept and inputs[0].untyped_storage().data_ptr() in kept


def test_rows_with_nan_and_zeros_are_contained():
    topology, inputs, direction = problem(5)
    clean = results(soliton_step, topology, inputs, direction)
    inputs[0][1, 3] = torch.nan
    inputs[0][2] = 0
    out, grad_psi, *shared = results(soliton_step, topology, inputs, direction)
    kept = [0, 3, 4]
    assert torch.equal(out[kept], clean[0][kept]) and torch.equal(grad_psi[kept], clean[1][kept])
    assert torch.isnan(torch.view_as_real(out[1])).all() and not out[2].any()
    assert torch.isnan(torch.view_as_real(grad_psi[1])).all()
    assert torch.isnan(shared[0]).all() and torch.isnan(shared[1])


def test_gradients_not_asked_for_are_not_computed():
    topology, (psi, *rest), direction = problem()
    psi.requires_grad_()
    (grad,) = torch.autograd.grad((soliton_step(psi, *rest[:3], topology, rest[3]) * direction).real.sum(), psi)
    (expected,) = torch.autograd.grad((in_turn(psi, *rest[:3], topology, rest[3]) * direction).real.sum(), psi)
    assert torch.equal(grad, expected)


def test_report_and_failure_in_both_directions():
    topology, inputs, direction = problem()
    out, info = soliton_step(*inputs[:4], topology, A, return_info=True)
    assert out.shape == (17, 64) and info.status.shape == (17,) and bool(info.converged.all())
    with pytest.raises(SolveError, match="soliton_step: 17 of 17 systems reached max_iter"):
        soliton_step(*inputs[:4], topology, 3.0, max_iter=1, on_failure="raise")
    inputs[0].requires_grad_()
    with pytest.warns(RuntimeWarning, match="soliton_step: 17 of 17"):
        out = soliton_step(*inputs[:4], topology, 3.0, max_iter=1, on_failure="warn")
    with pytest.warns(RuntimeWarning, match=r"soliton_step \(adjoint\): 17 of 17"):
        (out * direction).real.sum().backward()


def test_compile_func_grad_and_vmap():
    topology, inputs, direction = problem(6)

    def loss(psi, kerr, strength, weight, half_dt):
        return (soliton_step(psi, kerr, strength, weight, topology, half_dt) * direction).real.sum()

    leaves = [tensor.clone().requires_grad_() for tensor in inputs]
    expected = torch.autograd.grad(loss(*leaves), leaves)
    compiled = torch.autograd.grad(torch.compile(loss, fullgraph=True, backend="aot_eager")(*leaves), leaves)
    functional = torch.func.grad(loss, argnums=(0, 1, 2, 3, 4))(*inputs)
    for want, a, b in zip(expected, compiled, functional, strict=True):
        torch.testing.assert_close(a, want, rtol=1e-5, atol=1e-6)
        assert torch.equal(b, want)

    psi, kerr, strength, weight, half_dt = inputs
    batch = torch.stack([psi, 2 * psi, psi.conj()])
    mapped = torch.vmap(lambda wave: soliton_step(wave, kerr, strength, weight, topology, half_dt))(batch)
    assert torch.equal(mapped, soliton_step(batch, kerr, strength, weight, topology, half_dt))
    per_sample = torch.vmap(torch.func.grad(loss, argnums=1), in_dims=(0, None, None, None, None))(batch, *inputs[1:])
    assert torch.equal(per_sample, torch.stack([torch.func.grad(loss, argnums=1)(wave, *inputs[1:]) for wave in batch]))


def test_autocast_changes_no_bit_and_narrow_blocks_are_widened():
    topology, inputs, direction = problem()
    plain = results(soliton_step, topology, inputs, direction)
    with torch.autocast("cpu", torch.bfloat16):
        inside = results(soliton_step, topology, inputs, direction)
    assert all(torch.equal(a, b) for a, b in zip(plain, inside, strict=True))
    blocks = torch.view_as_real(inputs[0]).bfloat16().requires_grad_()
    out = soliton_step(blocks, *inputs[1:4], topology, A)
    assert out.dtype == torch.float32 and out.shape == blocks.shape
    assert torch.autograd.grad(out.sum(), blocks)[0].dtype == torch.bfloat16


def test_second_derivatives_raise():
    topology, inputs, _ = problem(2, 17)
    kerr = inputs[1].requires_grad_()
    (grad,) = torch.autograd.grad(soliton_step(*inputs[:4], topology, A).real.square().sum(), kerr, create_graph=True)
    with pytest.raises(NotImplementedError, match="sem.ops.reference.soliton_step"):
        grad.sum().backward()


@pytest.mark.parametrize(
    ("change", "kind", "message"),
    [
        ({"psi": rows(2, 5)}, ValueError, "psi: expected D = 64"),
        ({"kerr": torch.ones(5)}, ValueError, r"kerr: expected shape \[64\], got \[5\]"),
        ({"kerr": torch.ones(64, device="meta")}, ValueError, "kerr: expected device cpu"),
        ({"strength": torch.ones(2)}, ValueError, "strength: expected one element"),
        ({"edge_weight": torch.ones(3)}, ValueError, "edge_weight: expected shape"),
        ({"topology": 3}, TypeError, "topology: expected a sem.ops.Topology"),
        ({"num_bins": 3}, ValueError, "num_bins: expected at least 4"),
        ({"rule": "other"}, ValueError, "rule: expected one of"),
        ({"tol": 0.0}, ValueError, "tol: expected a finite number > 0"),
        ({"max_iter": -1}, ValueError, "max_iter: expected at least 0"),
        ({"on_failure": "cry"}, ValueError, "on_failure: expected one of"),
    ],
)
def test_errors_name_the_argument(change, kind, message):
    topology, (psi, kerr, strength, weight, half_dt), _ = problem(2)
    arguments = {
        "psi": psi,
        "kerr": kerr,
        "strength": strength,
        "edge_weight": weight,
        "topology": topology,
        "half_dt": half_dt,
    }
    with pytest.raises(kind, match=message):
        soliton_step(**(arguments | change))
