"""The other ways to compute the same thing in torch, written as well as torch allows.

What a peer can prepare once for given edge weights (its matrix) is not counted in its time.
"""

from __future__ import annotations

import math
import warnings

import numpy as np
import torch
from torch import Tensor

from sem.ops import Topology, reference

MOST_DENSE_NODES = 512


def csr_laplacian(edge_weight: Tensor, topology: Topology) -> Tensor:
    """The Laplacian as a ``torch.sparse`` CSR matrix ``[D, D]``."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Sparse CSR tensor support", category=UserWarning)
        return reference.laplacian_dense(edge_weight, topology).to_sparse_csr()


def laplacian_matrix(edge_weight: Tensor, topology: Topology) -> Tensor:
    """The Laplacian for products: dense up to :data:`MOST_DENSE_NODES` nodes, CSR above."""
    if topology.nodes <= MOST_DENSE_NODES:
        return reference.laplacian_dense(edge_weight, topology)
    return csr_laplacian(edge_weight, topology)


def laplacian_diagonal(edge_weight: Tensor, topology: Topology) -> Tensor:
    """``h_kk``, the sum of the weights at each node, ``[D]``."""
    i, j = topology.edges.unbind(1)
    return edge_weight.new_zeros(topology.nodes).index_add(0, i, edge_weight).index_add(0, j, edge_weight)


def columns(psi: Tensor) -> Tensor:
    """Complex ``[N, D]`` as real columns ``[D, 2N]``: all real parts, then all imaginary ones."""
    return torch.view_as_real(psi).permute(1, 2, 0).reshape(psi.shape[1], 2 * psi.shape[0])


def rows(columns: Tensor) -> Tensor:
    """The way back from :func:`columns`."""
    nodes, count = columns.shape
    return torch.view_as_complex(columns.view(nodes, 2, count // 2).permute(2, 0, 1).contiguous())


def eager_cg(psi: Tensor, matrix: Tensor, diagonal: Tensor, half_dt: float, tol: float, max_iter: int = 50) -> Tensor:
    """The Cayley step of ``psi`` (complex64 ``[N, D]``) by textbook preconditioned CG in torch operations.

    Solves ``(I + a^2 H^2) y = (I - iaH) psi`` for all ``2N`` real columns at once, preconditioned by
    ``1 / (1 + a^2 h_kk^2)``, until the worst column's residual is at most ``tol`` times its right-hand side.
    Products and updates go to buffers that exist already. Forward only.
    """
    tokens = psi.shape[0]
    wave = columns(psi)
    product = matrix @ wave
    residual = wave.clone()
    residual[:, :tokens].add_(product[:, tokens:], alpha=half_dt)
    residual[:, tokens:].sub_(product[:, :tokens], alpha=half_dt)
    target = tol * torch.linalg.vector_norm(residual, dim=0)

    inverse = (1 / (1 + (half_dt * diagonal) ** 2)).unsqueeze(1)
    solution = torch.zeros_like(wave)
    image, scratch = torch.empty_like(wave), torch.empty_like(wave)
    scaled = inverse * residual
    direction = scaled.clone()
    descent = torch.mul(residual, scaled, out=scratch).sum(0)
    for _ in range(max_iter):
        torch.mm(matrix, direction, out=product)
        torch.addmm(direction, matrix, product, alpha=half_dt**2, out=image)
        step = descent / torch.mul(direction, image, out=scratch).sum(0)
        solution.addcmul_(direction, step)
        residual.addcmul_(image, step, value=-1)
        if bool((torch.linalg.vector_norm(residual, dim=0) <= target).all()):
            break
        torch.mul(residual, inverse, out=scaled)
        previous, descent = descent, torch.mul(residual, scaled, out=scratch).sum(0)
        torch.addcmul(scaled, direction, descent / previous, out=direction)
    return rows(solution.mul_(2).sub_(wave))


def cayley_unitary(
    edge_weight: Tensor, topology: Topology, half_dt: float, dtype: torch.dtype = torch.complex64
) -> Tensor:
    """The Cayley step as a dense complex matrix ``U = U^T`` (solved in double): the step is ``psi @ U``."""
    identity = torch.eye(topology.nodes, dtype=torch.complex128, device=edge_weight.device)
    return reference.cayley(identity, edge_weight.double(), topology, half_dt).to(dtype)


def built_unitary(edge_weight: Tensor, topology: Topology, half_dt: float) -> Tensor:
    """:func:`cayley_unitary` as fast as torch builds it: one solve in complex64."""
    identity = torch.eye(topology.nodes)
    turned = half_dt * reference.laplacian_dense(edge_weight, topology)
    return torch.linalg.solve(torch.complex(identity, turned), torch.complex(identity, -turned))


def scipy_cg(psi: Tensor, edge_weight: Tensor, topology: Topology, half_dt: float, tol: float) -> Tensor:
    """The Cayley step of ``psi`` (complex64 ``[N, D]``) row by row with ``scipy.sparse.linalg.cg``, on the normal form
    and with the preconditioner of :func:`eager_cg`.

    Raises:
        ImportError: scipy is not installed.
    """
    from scipy.sparse import csr_matrix
    from scipy.sparse.linalg import LinearOperator, cg

    h = csr_matrix(reference.laplacian_dense(edge_weight, topology).numpy())
    scale = 1 / (1 + (half_dt * laplacian_diagonal(edge_weight, topology).numpy()) ** 2)
    normal = LinearOperator(h.shape, matvec=lambda v: v + half_dt**2 * (h @ (h @ v)), dtype=np.complex64)
    inverse = LinearOperator(h.shape, matvec=lambda v: scale * v, dtype=np.complex64)
    rows = []
    for row in psi.numpy():
        solution, _ = cg(normal, row - 1j * half_dt * (h @ row), rtol=tol, atol=0, maxiter=50, M=inverse)
        rows.append(2 * solution - row)
    return torch.from_numpy(np.stack(rows).astype(np.complex64))


def kde_pit(psi: Tensor, reference_rms: Tensor, strength: Tensor, num_bins: int) -> Tensor:
    """Phase transport by the score rule with every phase against every bin, in ``[..., D, num_bins]`` arrays.

    ``psi`` complex ``[..., D]`` without zeros, at least 20 bins (no kernel reaches around the circle).
    Autograd gives the backward.
    """
    sigma = 2 * math.pi / num_bins
    bins = torch.arange(num_bins, dtype=reference_rms.dtype, device=psi.device)
    distance = (psi.angle() / sigma).unsqueeze(-1) - bins
    distance = distance - num_bins * torch.round(distance / num_bins)
    kernel = torch.exp(-0.5 * distance.square())
    density_on_bins = kernel.sum(-2).unsqueeze(-1)
    density = (kernel @ density_on_bins).squeeze(-1)
    slope = -((distance * kernel) @ density_on_bins).squeeze(-1)
    score = slope / density
    shift = -strength * sigma * score * torch.rsqrt(1 + score.square())
    mean_square = torch.view_as_real(psi).square().sum(-1).mean(-1, keepdim=True)
    scale = reference_rms.unsqueeze(-1) * torch.rsqrt(mean_square)
    return psi * torch.polar(scale.expand_as(shift), shift)


def loop_scan(x: Tensor, dt_mag: Tensor, dt_phase: Tensor, decay: Tensor, frequency: Tensor) -> Tensor:
    """The scan as its formula reads: a Python loop over time that indexes its inputs, under autograd.

    The gradient of every ``[:, t]`` is an array of zeros of the input's size, which is most of its cost.
    """
    width = x.shape[2] // dt_mag.shape[2]
    state = torch.zeros_like(x[:, 0])
    states = []
    for t in range(x.shape[1]):
        m = dt_mag[:, t].repeat_interleave(width, dim=1)
        p = dt_phase[:, t].repeat_interleave(width, dim=1)
        state = torch.polar(torch.exp(-m * decay), p * frequency) * state + m * x[:, t]
        states.append(state)
    return torch.stack(states, 1)


def tuned_loop_scan(x: Tensor, dt_mag: Tensor, dt_phase: Tensor, decay: Tensor, frequency: Tensor) -> Tensor:
    """:func:`loop_scan` made fast: inputs unbound, not indexed, and only the recurrence in the loop."""
    width = x.shape[2] // dt_mag.shape[2]
    m = dt_mag.repeat_interleave(width, dim=2)
    p = dt_phase.repeat_interleave(width, dim=2)
    factors = torch.polar(torch.exp(-m * decay), p * frequency)
    state = torch.zeros_like(x[:, 0])
    states = []
    for factor, driven in zip(factors.unbind(1), (m * x).unbind(1), strict=True):
        state = torch.addcmul(driven, factor, state)
        states.append(state)
    return torch.stack(states, 1)


def chunked_scan(
    x: Tensor, dt_mag: Tensor, dt_phase: Tensor, decay: Tensor, frequency: Tensor, chunk: int = 32
) -> Tensor:
    """:func:`loop_scan` in chunks that advance side by side: ``chunk`` steps on all of them at once from zero, then the
    states between them one after the other, for steps that ``chunk`` divides.

    About twice the square root of the number of steps in place of the number itself, for three times the arithmetic.
    """
    batch, steps, channels = x.shape
    width = channels // dt_mag.shape[2]
    m = dt_mag.repeat_interleave(width, dim=2)
    p = dt_phase.repeat_interleave(width, dim=2)
    chunked = (batch, steps // chunk, chunk, channels)
    factors = torch.polar(torch.exp(-m * decay), p * frequency).view(chunked)
    state = torch.zeros_like(x[:, : steps // chunk])
    product = torch.ones_like(state)
    states, products = [], []
    for factor, driven in zip(factors.unbind(2), (m * x).view(chunked).unbind(2), strict=True):
        state = torch.addcmul(driven, factor, state)
        product = factor * product
        states.append(state)
        products.append(product)
    carried = torch.zeros_like(x[:, 0])
    carries = []
    for last, through in zip(state.unbind(1), product.unbind(1), strict=True):
        carries.append(carried)
        carried = torch.addcmul(last, through, carried)
    before = torch.stack(carries, 1).unsqueeze(2)
    return torch.addcmul(torch.stack(states, 2), torch.stack(products, 2), before).view_as(x)


def ptychographic_gradients(
    object: Tensor, probe: Tensor, corners: Tensor, data: Tensor, block: int
) -> tuple[Tensor, Tensor]:
    """Gradients of the amplitude loss to ``object [H, W]`` and ``probe [N, N]`` by hand, without a graph, ``block``
    patterns at a time: patches by an index, the overlap by ``index_add_``."""
    side, width = probe.shape[0], object.shape[1]
    along = torch.arange(side)
    to_object, to_probe = torch.zeros_like(object).flatten(), torch.zeros_like(probe)
    for corner, moduli in zip(corners.split(block), data.split(block), strict=True):
        rows, columns = corner[:, 0, None] + along, corner[:, 1, None] + along
        pixels = (rows * width).unsqueeze(2) + columns.unsqueeze(1)
        patch = object.flatten()[pixels]
        far = torch.fft.fft2(patch * probe, norm="ortho")
        chi = torch.fft.ifft2(far * (1 - moduli / far.abs()), norm="ortho")
        to_object.index_add_(0, pixels.flatten(), (probe.conj() * chi).flatten())
        to_probe += (patch.conj() * chi).sum(0)
    return to_object.view_as(object), to_probe
