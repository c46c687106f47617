"""The operators on CUDA and XPU tensors. Both compiled modules have one set of functions, so one implementation serves.

Work goes to the caller's current stream and device; nothing waits, and workspaces come from torch's caching allocator,
which hands memory of a stream on to work of that stream alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from sem import native
from sem.ops.cayley import cayley_backward, cayley_forward
from sem.ops.diffraction import diffraction_backward, diffraction_forward, empty_gradients, empty_image, sizes_of
from sem.ops.laplacian import laplacian_forward, laplacian_weight_gradient
from sem.ops.laplacian_cg import laplacian_cg_backward, laplacian_cg_forward
from sem.ops.pit import pit_backward, pit_forward
from sem.ops.registration import empty_solved
from sem.ops.scan import scan_backward, scan_forward
from sem.ops.soliton_step import soliton_step_backward, soliton_step_forward
from sem.ops.topology import edges_of, graph_view

# Module, and queue as the module takes it, for tensors of a device type without streams in torch (sem.ops.testing).
FIXED_QUEUES: dict[str, tuple[ModuleType, tuple[int, int]]] = {}


class _Call:
    """One operator call on the device of ``like``."""

    def __init__(self, like: Tensor) -> None:
        self._like = like
        self._workspace: Tensor | None = None

    def __call__(self, name: str, *args: Any, workspace: bool = True) -> None:
        """Enqueue ``name``; ``workspace``: it is one that needs some."""
        device = self._like.device
        given = (self._allocate, *args) if workspace else args
        if device.type in FIXED_QUEUES:
            module, queue = FIXED_QUEUES[device.type]
            getattr(module, name)(queue, *given)
            module.wait(queue[0])
            return
        operator = getattr(native.backend(device.type), name)
        with torch.get_device_module(device).device(device):
            operator((_stream(device), device.index), *given)

    def _allocate(self, floats: int) -> int:
        self._workspace = self._like.new_empty(floats, dtype=torch.float32)
        return self._workspace.data_ptr()


def _stream(device: torch.device) -> int:
    if device.type == "cuda":
        return torch.cuda.current_stream(device).cuda_stream
    return int(torch.xpu.current_stream(device).sycl_queue)


def _laplacian_forward(x: Tensor, edge_weight: Tensor, packed: Tensor, signed: bool) -> Tensor:
    rows, nodes, components = x.shape
    out = torch.empty_like(x)
    _Call(x)(
        "laplacian_forward",
        graph_view(packed, nodes),
        rows,
        components,
        edge_weight.data_ptr(),
        x.data_ptr(),
        out.data_ptr(),
        workspace=False,
    )
    return out


def _laplacian_weight_gradient(x: Tensor, grad: Tensor, packed: Tensor) -> Tensor:
    rows, nodes, components = x.shape
    out = x.new_empty(edges_of(packed, nodes))
    _Call(x)(
        "laplacian_weight_gradient",
        graph_view(packed, nodes),
        rows,
        components,
        x.data_ptr(),
        grad.data_ptr(),
        out.data_ptr(),
    )
    return out


def _cayley_forward(
    psi: Tensor, edge_weight: Tensor, half_dt: Tensor, packed: Tensor, tol: float, max_iter: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    rows, nodes, _ = psi.shape
    solved = empty_solved(psi)
    _Call(psi)(
        "cayley_forward",
        graph_view(packed, nodes),
        rows,
        edge_weight.data_ptr(),
        half_dt.data_ptr(),
        tol,
        max_iter,
        psi.data_ptr(),
        *(tensor.data_ptr() for tensor in solved),
    )
    return solved


def _cayley_backward(
    psi: Tensor,
    psi_out: Tensor,
    grad: Tensor,
    edge_weight: Tensor,
    half_dt: Tensor,
    packed: Tensor,
    tol: float,
    max_iter: int,
    to_weights: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    rows, nodes, _ = psi.shape
    make = torch.empty if to_weights else torch.zeros
    grad_weight = make(edges_of(packed, nodes), device=psi.device)
    grad_half_dt = make((), device=psi.device)
    grad_psi, status = torch.empty_like(psi), psi.new_empty(rows, dtype=torch.int32)
    _Call(psi)(
        "cayley_backward",
        graph_view(packed, nodes),
        rows,
        edge_weight.data_ptr(),
        half_dt.data_ptr(),
        tol,
        max_iter,
        psi.data_ptr(),
        psi_out.data_ptr(),
        grad.data_ptr(),
        grad_psi.data_ptr(),
        grad_weight.data_ptr() if to_weights else 0,
        grad_half_dt.data_ptr() if to_weights else 0,
        status.data_ptr(),
    )
    return grad_psi, grad_weight, grad_half_dt, status


def _laplacian_cg_forward(
    b: Tensor, edge_weight: Tensor, packed: Tensor, alpha: float, beta: float, gamma: float, tol: float, max_iter: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    rows, nodes, components = b.shape
    solved = empty_solved(b)
    _Call(b)(
        "laplacian_cg_forward",
        graph_view(packed, nodes),
        rows,
        components,
        edge_weight.data_ptr(),
        alpha,
        beta,
        gamma,
        tol,
        max_iter,
        b.data_ptr(),
        *(tensor.data_ptr() for tensor in solved),
    )
    return solved


def _laplacian_cg_backward(
    x: Tensor,
    grad: Tensor,
    edge_weight: Tensor,
    packed: Tensor,
    alpha: float,
    beta: float,
    gamma: float,
    tol: float,
    max_iter: int,
    to_weights: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    rows, nodes, components = x.shape
    make = torch.empty if to_weights else torch.zeros
    grad_weight = make(edges_of(packed, nodes), device=x.device)
    grad_b, status = torch.empty_like(x), x.new_empty(rows, dtype=torch.int32)
    _Call(x)(
        "laplacian_cg_backward",
        graph_view(packed, nodes),
        rows,
        components,
        edge_weight.data_ptr(),
        alpha,
        beta,
        gamma,
        tol,
        max_iter,
        x.data_ptr(),
        grad.data_ptr(),
        grad_b.data_ptr(),
        grad_weight.data_ptr() if to_weights else 0,
        status.data_ptr(),
    )
    return grad_b, grad_weight, status


def _pit_forward(
    psi: Tensor, reference_rms: Tensor, strength: Tensor, kerr: Tensor, num_bins: int, rule: int
) -> Tensor:
    rows, width, _ = psi.shape
    out = torch.empty_like(psi)
    inputs = (psi, reference_rms, strength, kerr)
    _Call(psi)("pit_forward", rows, width, num_bins, rule, *map(_address, inputs), out.data_ptr())
    return out


def _pit_backward(
    psi: Tensor, reference_rms: Tensor, strength: Tensor, kerr: Tensor, grad: Tensor, num_bins: int, rule: int
) -> tuple[Tensor, ...]:
    rows, width, _ = psi.shape
    inputs = (psi, reference_rms, strength, kerr)
    grads = tuple(torch.empty_like(tensor) for tensor in inputs)
    _Call(psi)("pit_backward", rows, width, num_bins, rule, *map(_address, (*inputs, grad, *grads)))
    return grads


def _soliton_step_forward(
    psi: Tensor,
    kerr: Tensor,
    strength: Tensor,
    edge_weight: Tensor,
    half_dt: Tensor,
    packed: Tensor,
    num_bins: int,
    rule: int,
    tol: float,
    max_iter: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    rows, nodes, _ = psi.shape
    solved, turned = empty_solved(psi), torch.empty_like(psi)
    tensors = (psi, kerr, strength, edge_weight, half_dt, turned, *solved)
    _Call(psi)(
        "soliton_step_forward", graph_view(packed, nodes), rows, num_bins, rule, tol, max_iter, *map(_address, tensors)
    )
    return solved


def _soliton_step_backward(
    psi: Tensor,
    psi_out: Tensor,
    grad: Tensor,
    kerr: Tensor,
    strength: Tensor,
    edge_weight: Tensor,
    half_dt: Tensor,
    packed: Tensor,
    num_bins: int,
    rule: int,
    tol: float,
    max_iter: int,
    to_weights: bool,
) -> tuple[Tensor, ...]:
    rows, nodes, _ = psi.shape
    make = torch.empty if to_weights else torch.zeros
    grad_weight, grad_half_dt = make(edges_of(packed, nodes), device=psi.device), make((), device=psi.device)
    turned, grad_turned, grad_psi = (torch.empty_like(psi) for _ in range(3))
    grad_kerr, grad_strength = torch.empty_like(kerr), torch.empty_like(strength)
    status = psi.new_empty(rows, dtype=torch.int32)
    tensors = (psi, kerr, strength, edge_weight, half_dt, turned, psi_out, grad, grad_turned)
    _Call(psi)(
        "soliton_step_backward",
        graph_view(packed, nodes),
        rows,
        num_bins,
        rule,
        tol,
        max_iter,
        *map(_address, (*tensors, grad_psi, grad_kerr, grad_strength)),
        grad_weight.data_ptr() if to_weights else 0,
        grad_half_dt.data_ptr() if to_weights else 0,
        status.data_ptr(),
    )
    return grad_psi, grad_kerr, grad_strength, grad_weight, grad_half_dt, status


def _scan_forward(
    x: Tensor, dt_mag: Tensor, dt_phase: Tensor, decay: Tensor, frequency: Tensor, initial_state: Tensor
) -> tuple[Tensor, Tensor]:
    states, final_state = torch.empty_like(x), torch.empty_like(initial_state)
    tensors = (x, dt_mag, dt_phase, decay, frequency, initial_state, states, final_state)
    shape = (*x.shape[:3], dt_mag.shape[2])
    _Call(x)("scan_forward", shape, *map(_address, tensors), workspace=False)
    return states, final_state


def _scan_backward(
    grad_states: Tensor,
    grad_final: Tensor,
    x: Tensor,
    dt_mag: Tensor,
    dt_phase: Tensor,
    decay: Tensor,
    frequency: Tensor,
    initial_state: Tensor,
    states: Tensor,
) -> tuple[Tensor, ...]:
    inputs = (x, dt_mag, dt_phase, decay, frequency, initial_state)
    grads = tuple(torch.empty_like(tensor) for tensor in inputs)
    shape = (*x.shape[:3], dt_mag.shape[2])
    _Call(x)("scan_backward", shape, *map(_address, (*inputs, states, grad_states, grad_final, *grads)))
    return grads


def _diffraction_forward(whole: list[int], real: list[float], *tensors: Tensor) -> Tensor:
    out = empty_image(whole, real, tensors)
    _Call(out)("diffraction_forward", whole, real, sizes_of(tensors), list(map(_address, tensors)), out.data_ptr())
    return out


def _diffraction_backward(whole: list[int], real: list[float], geometry: bool, *tensors: Tensor) -> Sequence[Tensor]:
    *inputs, grad = tensors
    grads = empty_gradients(inputs)
    addresses, to = list(map(_address, inputs)), list(map(_address, grads))
    _Call(grad)("diffraction_backward", whole, real, sizes_of(inputs), addresses, grad.data_ptr(), to, geometry)
    return grads


def _address(tensor: Tensor) -> int:
    """0, which the kernels read as absent, for an empty tensor."""
    return tensor.data_ptr()


IMPLEMENTATIONS: dict[Any, Callable[..., Any]] = {
    laplacian_forward: _laplacian_forward,
    laplacian_weight_gradient: _laplacian_weight_gradient,
    cayley_forward: _cayley_forward,
    cayley_backward: _cayley_backward,
    laplacian_cg_forward: _laplacian_cg_forward,
    laplacian_cg_backward: _laplacian_cg_backward,
    pit_forward: _pit_forward,
    pit_backward: _pit_backward,
    soliton_step_forward: _soliton_step_forward,
    soliton_step_backward: _soliton_step_backward,
    scan_forward: _scan_forward,
    scan_backward: _scan_backward,
    diffraction_forward: _diffraction_forward,
    diffraction_backward: _diffraction_backward,
}


for _operator, _implementation in IMPLEMENTATIONS.items():
    _operator.register_kernel(("cuda", "xpu"), _implementation)
