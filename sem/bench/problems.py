"""Inputs of the benchmarks, all from fixed seeds, and exact gradients to compare with."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from sem.ops import Topology
from sem.propagator import MultiScaleHamiltonian


def generator(seed: int) -> torch.Generator:
    """Random numbers of the CPU that depend on ``seed`` alone."""
    return torch.Generator().manual_seed(seed)


def complex_normal(*shape: int, seed: int) -> Tensor:
    """Complex64 noise of that shape on the CPU, of variance 1: half of it in each part."""
    return torch.randn(*shape, dtype=torch.complex64, generator=generator(seed))


def multiscale_graph(nodes: int, sparsity: int = 8) -> tuple[Topology, Tensor]:
    """The model's graph at initialisation: three small-world scales merged, of mean degree ``sparsity``, twice and four
    times that; about 39 nonzeros per row for 8.

    Returns the topology and its edge weights ``[E]``.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        hamiltonian = MultiScaleHamiltonian(nodes, sparsity=sparsity)
    return hamiltonian.topology, hamiltonian.edge_weight().detach()


def exact_gradients(
    function: Callable[..., Tensor], inputs: Sequence[Tensor], grad: Tensor, row_inputs: int, chunk: int
) -> list[Tensor]:
    """Gradients of ``function(*inputs)`` in double precision, ``chunk`` rows at a time: large twins must fit.

    The first ``row_inputs`` inputs and the output are per row (first dimension); the others are shared, and
    their gradients are summed over the chunks.
    """
    shared = [_double(tensor).requires_grad_() for tensor in inputs[row_inputs:]]
    per_row: list[list[Tensor]] = []
    totals = [torch.zeros_like(tensor) for tensor in shared]
    for start in range(0, grad.shape[0], chunk):
        part = slice(start, start + chunk)
        own = [_double(tensor[part]).requires_grad_() for tensor in inputs[:row_inputs]]
        gradients = torch.autograd.grad(function(*own, *shared), [*own, *shared], _double(grad[part]))
        per_row.append(list(gradients[:row_inputs]))
        for total, gradient in zip(totals, gradients[row_inputs:], strict=True):
            total.add_(gradient)
    return [*(torch.cat(parts) for parts in zip(*per_row, strict=True)), *totals]


def _double(tensor: Tensor) -> Tensor:
    return tensor.detach().to(torch.complex128 if tensor.is_complex() else torch.float64)
