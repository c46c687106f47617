"""The kernels of CUDA and XPU devices, run by a SYCL CPU device on ordinary tensors.

Device-specific layouts: sub-group sizes, tiles of few rows, vectors that do not fit local memory. What every back end
promises is tested by the operators' own tests, which run on these kernels too (conftest.py).
"""

from __future__ import annotations

import os
import subprocess
import sys

import diffraction_problems as images
import pytest
import torch
from golden_images import (
    CASES,
    LARGEST_ERROR,
    LEAST_CORRELATION,
    flags_of,
    golden_and,
    image_of,
    write_inputs,
)
from helpers import (
    double,
    exact_solve,
    generator,
    graph,
    relative_error,
    row_errors,
    rows,
    sparse_laplacian,
    strength_limit,
    weights,
)
from ptychographic_problems import scan_of
from scan_problems import Problem, run, same_bits, weights_for

from sem import native
from sem.diffraction.comparison import compare
from sem.ops import (
    SolveStatus,
    Topology,
    cayley,
    diffraction,
    laplacian_cg,
    laplacian_matvec,
    pit,
    ptychographic_loss,
    reference,
    reference_diffraction,
    scan,
)

pytestmark = [
    pytest.mark.own_backend,
    pytest.mark.skipif(
        not native.is_built("xpu") and os.environ.get("SEM_TEST_BACKEND") != "sycl",
        reason="no XPU kernels are built; make sycl-check builds and tests them",
    ),
]

# All that the device has, with sub-groups of 16; what the smallest supported devices offer, and a tenth of it, which
# nothing fits; and the other sizes of work-groups and sub-groups.
LAYOUTS = {
    "all of the device": {},
    "64 KiB of local memory": {"local_bytes": 64 * 1024},
    "8 KiB of local memory": {"local_bytes": 8 * 1024},
    "groups of 64": {"group_size": 64},
    "sub-groups of 8": {"sub_group_size": 8},
    "sub-groups of 32": {"sub_group_size": 32},
}

ONE_PRODUCT = """
import torch
from sem.ops import Topology, laplacian_matvec
from sem.ops.testing import xpu_kernels_on_cpu_tensors
with xpu_kernels_on_cpu_tensors():
    laplacian_matvec(torch.ones(1, 3), torch.ones(2), Topology(3, [(0, 1), (1, 2)]))
"""


@pytest.fixture(params=LAYOUTS.values(), ids=LAYOUTS.keys())
def layout(request):
    from sem.ops.testing import xpu_kernels_on_cpu_tensors

    with xpu_kernels_on_cpu_tensors(**request.param):
        yield


@pytest.fixture
def device():
    from sem.ops.testing import xpu_kernels_on_cpu_tensors

    with xpu_kernels_on_cpu_tensors():
        yield


def exact_cayley(psi, weight, topology, half_dt):
    """psi_out in double; (I + a^2 H^2) y = (I - iaH) psi."""
    h = sparse_laplacian(weight, topology)
    wide = double(psi)
    h_psi = torch.view_as_complex(
        torch.stack([(h @ part.T).T for part in torch.view_as_real(wide).unbind(-1)], -1).contiguous()
    )
    y = exact_solve(wide - 1j * half_dt * h_psi, weight, topology, 1.0, 0.0, half_dt**2)
    return 2 * y - wide


def gradients(call, *inputs, cotangent):
    inputs = [tensor.detach().clone().requires_grad_() for tensor in inputs]
    out = call(*inputs)
    return out.detach(), *torch.autograd.grad(out, inputs, cotangent)


@pytest.mark.parametrize("nodes", [2, 3, 17, 64, 65, 256, 1025])
def test_cayley_and_its_gradients_in_every_layout(layout, nodes):
    topology = graph(nodes)
    psi, weight, a = rows(11, nodes), weights(topology), torch.tensor(0.2)
    cotangent = rows(11, nodes, seed=1)
    out, grad_psi, grad_weight, grad_a = gradients(
        lambda psi, weight, a: cayley(psi, weight, topology, a, 1e-6), psi, weight, a, cotangent=cotangent
    )
    exact = exact_cayley(psi, weight, topology, 0.2)
    assert row_errors(out, exact).max() <= 3e-6
    assert (double(out).norm(dim=1) / double(psi).norm(dim=1) - 1).abs().max() <= 5e-7
    exact_grad = exact_cayley(cotangent, weight, topology, -0.2)
    assert row_errors(grad_psi, exact_grad).max() <= 3e-6
    z, y = (exact_grad + double(cotangent)) / 2, (exact + double(psi)) / 2
    i, j = topology.edges.unbind(1)
    current = ((z[:, i] - z[:, j]).conj() * (y[:, i] - y[:, j])).imag.sum(0)
    assert relative_error(grad_weight, 0.4 * current) <= 1e-5
    assert relative_error(grad_a, 2 * (double(weight) * current).sum()) <= 1e-4


@pytest.mark.parametrize("nodes", [2, 33, 300])
@pytest.mark.parametrize("dtype", [torch.float32, torch.complex64])
@pytest.mark.parametrize("coefficients", [(1.0, 0.5, 0.0), (1.5, 0.25, 0.1)])
def test_laplacian_cg_and_its_gradients_in_every_layout(layout, nodes, dtype, coefficients):
    topology = graph(nodes)
    b, weight, cotangent = rows(11, nodes, dtype), weights(topology), rows(11, nodes, dtype, seed=1)
    out, grad_b, grad_weight = gradients(
        lambda b, weight: laplacian_cg(b, weight, topology, *coefficients, tol=1e-6), b, weight, cotangent=cotangent
    )
    exact = gradients(
        lambda b, weight: reference.laplacian_cg(b, weight, topology, *coefficients),
        double(b),
        double(weight),
        cotangent=double(cotangent),
    )
    assert row_errors(out, exact[0]).max() <= 5e-6
    assert row_errors(grad_b, exact[1]).max() <= 5e-6
    assert relative_error(grad_weight, exact[2]) <= 1e-5


@pytest.mark.parametrize("nodes", [2, 31, 32, 33, 1025])
@pytest.mark.parametrize("dtype", [torch.float32, torch.complex64])
def test_laplacian_matvec_and_its_gradients(device, nodes, dtype):
    topology = graph(nodes)
    x, weight, cotangent = rows(19, nodes, dtype), weights(topology), rows(19, nodes, dtype, seed=1)
    out, grad_x, grad_weight = gradients(
        lambda x, weight: laplacian_matvec(x, weight, topology), x, weight, cotangent=cotangent
    )
    exact = gradients(
        lambda x, weight: reference.laplacian_matvec(x, weight, topology),
        double(x),
        double(weight),
        cotangent=double(cotangent),
    )
    for value, truth in zip((out, grad_x, grad_weight), exact, strict=True):
        assert relative_error(value, truth) <= 2e-6


@pytest.mark.parametrize("width", [1, 31, 256, 2049])
@pytest.mark.parametrize("rule", ["score", "density_ratio"])
@pytest.mark.parametrize("with_kerr", [False, True])
def test_pit_and_its_gradients(layout, width, rule, with_kerr):
    psi, cotangent = rows(7, width), rows(7, width, seed=1)
    reference_rms = 0.5 + torch.rand(7, generator=generator(2))
    strength = torch.tensor(0.7)
    extra = (0.3 * torch.randn(width, generator=generator(3)),) if with_kerr else ()
    inputs = (psi, reference_rms, strength, *extra)

    def call(function):
        def with_arguments(psi, reference_rms, strength, *kerr):
            return function(psi, reference_rms, strength, rule=rule, kerr=kerr[0] if kerr else None)

        return with_arguments

    values = gradients(call(pit), *inputs, cotangent=cotangent)
    exact = gradients(call(reference.pit), *map(double, inputs), cotangent=double(cotangent))
    strength_error = abs(float(values[3] - exact[3]))
    assert strength_error <= strength_limit(exact[3], cotangent, exact[0])
    for value, truth in zip(values[:3] + values[4:], exact[:3] + exact[4:], strict=True):
        assert relative_error(value, truth) <= 3e-5


@pytest.mark.parametrize("sizes", [(1, 1, 1, 1), (3, 67, 6, 3), (2, 130, 66, 2), (2, 33, 96, 96)])
def test_scan_and_its_gradients(layout, sizes):
    problem = Problem.random(*sizes)
    cotangents = weights_for(problem)
    values = run(scan, problem, cotangents)
    exact = run(reference.scan, problem.double(), cotangents)
    for value, truth in zip((*values[0], *values[1]), (*exact[0], *exact[1]), strict=True):
        assert relative_error(value, truth) <= 1e-5


@pytest.mark.parametrize(("patterns", "side"), [(9, 21), (2, 67)])
def test_ptychographic_losses_and_their_gradients(layout, patterns, side):
    object, probe, positions, data, weight, background = scan_of(patterns, 2, side, (90, 83))

    def call(function):
        def total(object, probe, positions, background):
            masks = weight.to(positions)
            found = function(object, probe, positions, data.to(positions), weight=masks, background=background)
            return found.total if isinstance(found, tuple) else found.sum()

        return total

    inputs = object, probe, positions, background
    values = gradients(call(ptychographic_loss), *inputs, cotangent=torch.tensor(1.0))
    exact = gradients(
        call(reference.ptychographic_loss), *map(double, inputs), cotangent=torch.tensor(1.0, dtype=torch.float64)
    )
    for value, truth, limit in zip(values, exact, (2e-6, 1e-5, 1e-5, 5e-5, 1e-4), strict=True):
        assert relative_error(value, truth) <= limit


@pytest.mark.parametrize("name", ["square", "gauss", "thick", "curved", "tricubic", "no pixels"])
def test_diffraction_and_its_gradients(layout, name):
    problem = images.PROBLEMS[name]
    truth = reference_diffraction.diffraction(*problem, **images.OPTIONS)
    assert images.relative_error(diffraction(*problem, **images.OPTIONS), truth) <= 5e-7
    direction = torch.randn(problem[0].shape, generator=generator(1))
    values, exact = (
        images.gradients(function, problem, images.OPTIONS, direction)[0]
        for function in (diffraction, reference_diffraction.diffraction)
    )
    for key, value in values.items():
        assert images.relative_error(value, exact[key]) <= 1e-5, key


@pytest.mark.parametrize("name", CASES)
def test_diffraction_gives_the_c_programs_image(device, name, tmp_path, monkeypatch):
    write_inputs(tmp_path)
    monkeypatch.chdir(tmp_path)
    result = compare(*golden_and(name, image_of(flags_of(name))))
    assert result.relative_difference <= LARGEST_ERROR
    assert result.correlation >= LEAST_CORRELATION


@pytest.mark.parametrize("nodes", [2, 17, 300])
def test_a_rows_bits_depend_on_that_row_alone(layout, nodes):
    topology, tokens = graph(nodes), 29
    psi, weight = rows(tokens, nodes) * torch.logspace(-3, 3, tokens).unsqueeze(1), weights(topology)
    uneven = weight * torch.logspace(-3, 0, weight.numel())  # a wide spectrum, beyond the first guess
    out, info = cayley(psi, uneven, topology, 8.0, 1e-5, 300, return_info=True)
    again, info_again = cayley(psi, uneven, topology, 8.0, 1e-5, 300, return_info=True)
    assert same_bits(out, again) and same_bits(info.residual, info_again.residual)
    for chosen in (slice(0, 1), slice(28, 29), slice(3, 19), slice(1, 29, 9)):
        part, report = cayley(psi[chosen], uneven, topology, 8.0, 1e-5, 300, return_info=True)
        assert same_bits(part, out[chosen])
        assert torch.equal(report.iterations, info.iterations[chosen])
        assert same_bits(report.residual, info.residual[chosen])


def test_repeated_gradients_have_the_same_bits(layout):
    topology = graph(65)
    psi, weight, cotangent = rows(200, 65), weights(topology), rows(200, 65, seed=1)

    def once():
        return gradients(lambda psi, weight: cayley(psi, weight, topology, 0.3), psi, weight, cotangent=cotangent)

    assert all(same_bits(a, b) for a, b in zip(once(), once(), strict=True))


def test_bad_rows_are_contained(layout):
    topology = graph(33)
    psi, weight = rows(20, 33), weights(topology)
    clean = cayley(psi, weight, topology, 0.3)
    spoilt = psi.clone()
    spoilt[3, 5] = torch.nan
    spoilt[18, 0] = torch.inf
    spoilt[7] = 0
    out, info = cayley(spoilt, weight, topology, 0.3, return_info=True)
    bad = torch.zeros(20, dtype=torch.bool)
    bad[[3, 18]] = True
    assert torch.isnan(torch.view_as_real(out[bad])).all()
    assert (info.status[bad] == SolveStatus.NONFINITE).all() and info.residual[bad].isnan().all()
    assert not out[7].any() and info.iterations[7] == 0 and info.residual[7] == 0
    rest = ~bad
    rest[7] = False
    assert same_bits(out[rest], clean[rest])


def test_a_masked_row_of_nan_leaves_the_weights_gradient_alone(layout):
    topology = graph(33)
    psi, cotangent = rows(20, 33), rows(20, 33, seed=1)
    cotangent[4] = 0
    weight = weights(topology)
    spoilt = psi.clone()
    spoilt[4] = torch.nan
    _, _, clean = gradients(lambda p, w: cayley(p, w, topology, 0.3), psi, weight, cotangent=cotangent)
    _, _, grad = gradients(lambda p, w: cayley(p, w, topology, 0.3), spoilt, weight, cotangent=cotangent)
    assert same_bits(grad, clean)


def test_limits_are_reported(layout):
    topology = graph(64)
    psi, weight = rows(3, 64), weights(topology)
    _, info = cayley(psi, 20 * weight, topology, 5.0, 1e-6, 6, return_info=True)
    assert (info.status == SolveStatus.MAX_ITER).all() and (info.iterations == 6).all()
    assert (info.residual > 1e-6).all()
    _, info = cayley(psi, 20 * weight, topology, 5.0, 1e-9, 2000, return_info=True)
    assert (info.status == SolveStatus.STAGNATED).all()
    out, info = cayley(psi, weight, topology, 0.0, 1e-6, 0, return_info=True)
    # The identity but for rounding, as on the CPU: the mean over nodes, which no step moves, is taken out and added.
    assert info.converged.all() and relative_error(out, psi) <= 1e-7


def test_no_rows(layout):
    topology = graph(17)
    weight = weights(topology).requires_grad_()
    psi = rows(0, 17).requires_grad_()
    out = cayley(psi, weight, topology, 0.3)
    out.sum().abs().backward()
    assert out.shape == (0, 17) and torch.equal(weight.grad, torch.zeros_like(weight))
    assert laplacian_matvec(rows(0, 17), weight, topology).shape == (0, 17)
    assert pit(rows(0, 17), None, 1.0).shape == (0, 17)


def test_one_node_without_edges(device):
    lonely = Topology(1, [])
    psi = rows(3, 1)
    assert relative_error(cayley(psi, torch.empty(0), lonely, 0.3), psi) <= 1e-7


def test_4096_nodes(device):
    topology = graph(4096)
    psi, weight = rows(2, 4096), weights(topology)
    out, info = cayley(psi, weight, topology, 0.2, 1e-6, return_info=True)
    assert info.converged.all()
    assert row_errors(out, exact_cayley(psi, weight, topology, 0.2)).max() <= 3e-6


def test_weights_without_gradient_cost_none(device):
    topology = graph(33)
    psi = rows(5, 33).requires_grad_()
    cotangent = rows(5, 33, seed=1)
    (grad,) = torch.autograd.grad(cayley(psi, weights(topology), topology, 0.2, 1e-6), psi, cotangent)
    assert row_errors(grad, exact_cayley(cotangent, weights(topology), topology, -0.2)).max() <= 3e-6


def test_the_next_process_compiles_nothing(tmp_path):
    """What the device's own compiler made is found again too: SYCL knows it by what it was made of, to the byte."""
    environment = os.environ | {"SYCL_CACHE_PERSISTENT": "1", "SYCL_CACHE_DIR": str(tmp_path)}
    kept = []
    for _ in range(2):
        subprocess.run([sys.executable, "-c", ONE_PRODUCT], env=environment, cwd=tmp_path, check=True, timeout=300)
        kept.append({path for path in tmp_path.rglob("*") if path.is_file()})
    assert kept[0] and kept[1] == kept[0]
