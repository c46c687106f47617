"""Problems on graphs, their exact answers, and the one list of graph operators that the tests take products with."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor

from sem.ops import Topology, cayley, laplacian_cg, laplacian_matvec, reference

NODES = (2, 3, 17, 64, 256, 1000, 4096)
TOKENS = (0, 1, 15, 16, 17, 1000)


@cache
def graph(nodes: int, degree: int = 8, seed: int = 0) -> Topology:
    return Topology.small_world(nodes, min(degree, max(nodes - 1, 1)), seed=seed)


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def weights(topology: Topology, seed: int = 0) -> Tensor:
    """Positive float32 edge weights around 0.7; every eighth edge has weight 0."""
    weight = torch.nn.functional.softplus(0.5 * torch.randn(topology.num_edges, generator=generator(seed)))
    weight[7::8] = 0
    return weight


def rows(tokens: int, nodes: int, dtype: torch.dtype = torch.complex64, seed: int = 0) -> Tensor:
    """``[tokens, nodes]`` standard normal."""
    return torch.randn(tokens, nodes, dtype=dtype, generator=generator(seed))


def distinct_rows(tokens: int, nodes: int) -> int:
    """How many rows of a test with an exact answer are distinct; the others repeat them, in other lanes."""
    return 50 if nodes * tokens > 100_000 else tokens


def double(tensor: Tensor) -> Tensor:
    return tensor.detach().to(torch.complex128 if tensor.is_complex() else torch.float64)


def relative_error(value: Tensor, exact: Tensor) -> float:
    """Norm-wise; 0 for empty tensors and for two zeros."""
    exact = double(exact)
    difference = torch.linalg.vector_norm(double(value) - exact)
    return float(difference / torch.linalg.vector_norm(exact)) if difference != 0 else 0.0


def row_errors(value: Tensor, exact: Tensor) -> Tensor:
    """Norm-wise relative error of each row (last dimension)."""
    difference = torch.linalg.vector_norm(double(value) - exact, dim=-1)
    return torch.where(difference == 0, 0.0, difference / torch.linalg.vector_norm(exact, dim=-1))


def strength_limit(exact: Tensor, cotangent: Tensor, out: Tensor, rounding: float = 1e-7) -> float:
    """How far from ``exact`` a float32 gradient to the strength of ``pit``, with its 32 bins, may be. Its terms cancel,
    all but completely in rows of one or two entries, and so does the score that each holds: rounding goes by the size
    of the terms, whose sum sigma |cotangent| |out| bounds."""
    bound = 2 * math.pi / 32 * float(torch.linalg.vector_norm(cotangent) * torch.linalg.vector_norm(out))
    return 1e-5 * abs(float(exact)) + rounding * bound


def exact_solve(b: Tensor, weight: Tensor, topology: Topology, alpha: float, beta: float, gamma: float) -> Tensor:
    """``(alpha I + beta H + gamma H^2) x = b`` in double by textbook conjugate gradients on the sparse ``H``, which
    scales where the dense twins do not. It answers for itself: the true residual must be of rounding size."""
    h = sparse_laplacian(weight, topology)

    def apply(v: Tensor) -> Tensor:
        hv = h @ v
        return alpha * v + beta * hv + gamma * (h @ hv)

    blocks = torch.view_as_real(double(b)) if b.is_complex() else double(b).unsqueeze(-1)
    blocks = blocks.movedim(-2, 0)
    columns = blocks.reshape(topology.nodes, b.shape[:-1].numel() * blocks.shape[-1])
    x, r = torch.zeros_like(columns), columns.clone()
    p, rr = r, (r * r).sum()
    goal = 1e-23 * rr
    while rr > goal:
        sp = apply(p)
        step = rr / (p * sp).sum()
        x, r = x + step * p, r - step * sp
        previous, rr = rr, (r * r).sum()
        p = r + rr / previous * p
    assert torch.linalg.vector_norm(columns - apply(x)) <= 1e-10 * torch.linalg.vector_norm(columns)
    x = x.reshape(blocks.shape).movedim(0, -2)
    return torch.view_as_complex(x.contiguous()) if b.is_complex() else x.squeeze(-1)


def sparse_laplacian(weight: Tensor, topology: Topology) -> Tensor:
    i, j = topology.edges.unbind(1)
    w = double(weight)
    degree = torch.zeros(topology.nodes, dtype=torch.float64).index_add(0, i, w).index_add(0, j, w)
    nodes = torch.arange(topology.nodes)
    index = torch.stack([torch.cat([i, j, nodes]), torch.cat([j, i, nodes])])
    return torch.sparse_coo_tensor(index, torch.cat([-w, -w, degree]), (topology.nodes,) * 2).to_sparse_csr()


@dataclass(frozen=True)
class Operator:
    """A graph operator with its settings fixed: what all of them promise is tested once, for each."""

    name: str
    dtype: torch.dtype
    call: Callable[[Tensor, Tensor, Topology], Tensor]
    twin: Callable[[Tensor, Tensor, Topology], Tensor]
    first_argument: str

    def problem(self, tokens: int = 21, nodes: int = 33) -> tuple[Tensor, Tensor, Topology]:
        topology = graph(nodes)
        return rows(tokens, nodes, self.dtype), weights(topology), topology

    def gradients(
        self, x: Tensor, weight: Tensor, topology: Topology, cotangent: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """``(output, grad_x, grad_weight)``."""
        x, weight = x.detach().requires_grad_(), weight.detach().requires_grad_()
        out = self.call(x, weight, topology)
        return out.detach(), *torch.autograd.grad(out, (x, weight), cotangent)

    def __str__(self) -> str:
        return self.name


def _laplacian_matvec(name: str, dtype: torch.dtype) -> Operator:
    return Operator(name, dtype, laplacian_matvec, reference.laplacian_matvec, "x")


def _cayley() -> Operator:
    return Operator(
        "cayley",
        torch.complex64,
        lambda psi, weight, topology: cayley(psi, weight, topology, 0.25, 1e-6),
        lambda psi, weight, topology: reference.cayley(psi, weight, topology, 0.25),
        "psi",
    )


def _laplacian_cg(name: str, dtype: torch.dtype, *coefficients: float) -> Operator:
    return Operator(
        name,
        dtype,
        lambda b, weight, topology: laplacian_cg(b, weight, topology, *coefficients, tol=1e-6),
        lambda b, weight, topology: reference.laplacian_cg(b, weight, topology, *coefficients),
        "b",
    )


OPERATORS = (
    _laplacian_matvec("laplacian_matvec_real", torch.float32),
    _laplacian_matvec("laplacian_matvec_complex", torch.complex64),
    _cayley(),
    _laplacian_cg("laplacian_cg_real", torch.float32, 1.0, 0.5, 0.0),
    _laplacian_cg("laplacian_cg_complex", torch.complex64, 1.5, 0.25, 0.1),
)
SOLVERS = OPERATORS[2:]
