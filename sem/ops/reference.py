"""Plain-torch twins of the native operators: for reading first and checking second.

They take float32 or float64 (complex64 or complex128), are differentiable to any order and make no attempt at speed.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from sem.ops.patches import Patches
from sem.ops.topology import Topology


def laplacian_dense(edge_weight: Tensor, topology: Topology) -> Tensor:
    """The Laplacian as a dense ``[D, D]`` matrix."""
    i, j = topology.edges.to(edge_weight.device).unbind(1)
    adjacency = edge_weight.new_zeros(topology.nodes, topology.nodes)
    adjacency = adjacency.index_put((i, j), edge_weight).index_put((j, i), edge_weight)
    return torch.diag(adjacency.sum(1)) - adjacency


def laplacian_matvec(x: Tensor, edge_weight: Tensor, topology: Topology) -> Tensor:
    """Twin of :func:`sem.ops.laplacian_matvec`: the flow along each edge, out of one end and into the other."""
    i, j = topology.edges.to(x.device).unbind(1)
    flow = edge_weight * (x[..., i] - x[..., j])
    return torch.zeros_like(x).index_add(-1, i, flow).index_add(-1, j, -flow)


def cayley(psi: Tensor, edge_weight: Tensor, topology: Topology, half_dt: Tensor | float) -> Tensor:
    """Twin of :func:`sem.ops.cayley`: a dense solve. ``psi`` complex ``[..., D]``."""
    h = laplacian_dense(edge_weight, topology)
    plus = torch.eye(topology.nodes, dtype=psi.dtype, device=psi.device) + 1j * half_dt * h
    flat = psi.reshape(-1, topology.nodes)
    return torch.linalg.solve(plus, plus.conj() @ flat.T).T.reshape(psi.shape)


def laplacian_cg(b: Tensor, edge_weight: Tensor, topology: Topology, alpha: float, beta: float, gamma: float) -> Tensor:
    """Twin of :func:`sem.ops.laplacian_cg`: a dense solve of ``(alpha I + beta H + gamma H^2) x = b``."""
    h = laplacian_dense(edge_weight, topology)
    system = alpha * torch.eye(topology.nodes, dtype=h.dtype, device=h.device) + beta * h + gamma * h @ h
    flat = b.reshape(-1, topology.nodes)
    return torch.linalg.solve(system.to(b.dtype), flat.T).T.reshape(b.shape)


def pit(
    psi: Tensor,
    reference_rms: Tensor | None,
    strength: Tensor | float,
    num_bins: int = 32,
    rule: str = "score",
    *,
    kerr: Tensor | None = None,
) -> Tensor:
    """Twin of :func:`sem.ops.pit`: every phase against every bin. ``psi`` complex ``[..., D]``."""
    sigma = 2 * math.pi / num_bins
    largest = torch.view_as_real(psi.detach()).abs().amax((-2, -1)).unsqueeze(-1)
    scale = torch.ldexp(torch.ones_like(largest), 1 - torch.frexp(largest).exponent)
    wave = psi * scale
    power = wave.real.square() + wave.imag.square()
    mean_power = torch.where(largest > 0, power.mean(-1, keepdim=True), 1.0)
    if kerr is not None:
        kerr_phase = kerr * power / mean_power
        wave = wave * torch.polar(torch.ones_like(kerr_phase), kerr_phase)
    re, im = wave.real, wave.imag
    counted = torch.maximum(re.abs(), im.abs()) > 2.0**-100
    phase = torch.atan2(torch.where(counted, im, 0.0), torch.where(counted, re, 1.0)) / sigma

    distance = phase.unsqueeze(-1) - torch.arange(num_bins, device=psi.device)
    distance = distance - num_bins * torch.round(distance / num_bins)
    turns = 20 // num_bins + 1 if num_bins < 20 else 0
    kernel = slope = torch.zeros_like(distance)
    for turn in range(-turns, turns + 1):
        x = distance - turn * num_bins
        g = torch.exp(-0.5 * x * x)
        kernel, slope = kernel + g, slope - x * g
    rho = (kernel * counted.unsqueeze(-1)).sum(-2, keepdim=True)
    density = torch.where(counted, (kernel * rho).sum(-1), 1.0)
    if rule == "score":
        s = -(slope * rho).sum(-1) / density
    else:
        s = 2 * math.pi / num_bins * counted.sum(-1, keepdim=True) / density - 1
    shift = torch.where(counted, strength * sigma * s / torch.sqrt(1 + s * s), 0.0)

    turned = torch.complex(re, im) * torch.polar(torch.ones_like(shift), shift)
    gain = 1 / scale if reference_rms is None else reference_rms.unsqueeze(-1) / mean_power.sqrt()
    return torch.where(torch.isfinite(largest), turned * gain, math.nan)


def soliton_step(
    psi: Tensor,
    kerr: Tensor,
    strength: Tensor | float,
    edge_weight: Tensor,
    topology: Topology,
    half_dt: Tensor | float,
    num_bins: int = 32,
    rule: str = "score",
) -> Tensor:
    """Twin of :func:`sem.ops.soliton_step`. ``psi`` complex ``[..., D]``."""
    turned = pit(psi, None, strength, num_bins, rule, kerr=kerr)
    return cayley(turned, edge_weight, topology, half_dt)


def scan(
    x: Tensor,
    dt_mag: Tensor,
    dt_phase: Tensor,
    decay: Tensor,
    frequency: Tensor,
    initial_state: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Twin of :func:`sem.ops.scan`: a loop over time. ``x`` complex ``[B, S, C]``."""
    channels_per_group = x.shape[2] // dt_mag.shape[2]
    m = dt_mag.repeat_interleave(channels_per_group, dim=2)
    p = dt_phase.repeat_interleave(channels_per_group, dim=2)
    a = torch.exp(torch.complex(-m * decay, p * frequency))
    h = x.new_zeros(x.shape[0], x.shape[2]) if initial_state is None else initial_state
    states = []
    for a_t, driven in zip(a.unbind(1), (m * x).unbind(1), strict=True):
        h = a_t * h + driven
        states.append(h)
    return torch.stack(states, 1) if states else x, h


def complex_rms_norm(z: Tensor, gamma: Tensor, eps: float = 1e-6) -> Tensor:
    """Twin of :func:`sem.ops.complex_rms_norm`. ``z`` complex ``[..., D]``."""
    power = z.real.square() + z.imag.square()
    mean = power.sum(-1, keepdim=True) / (power > 1e-12).sum(-1, keepdim=True).clamp_min(1)
    return z * (gamma / (mean.clamp_min(1e-24).sqrt() + eps))


def gated_rotation(x: Tensor, logits: Tensor, blocks: Tensor) -> Tensor:
    """Twin of :func:`sem.ops.gated_rotation`. ``x`` complex ``[..., D]``, ``blocks`` complex ``[D / b, b, b]``."""
    turned = torch.einsum("gij,...gj->...gi", blocks, x.unflatten(-1, blocks.shape[:2])).flatten(-2)
    return x + torch.sigmoid(1.7015 * logits) * (turned - x)


def wave_gate(psi: Tensor, logits: Tensor) -> Tensor:
    """Twin of :func:`sem.ops.wave_gate`. ``psi`` complex ``[..., D]``."""
    return psi * torch.nn.functional.silu(logits)


def potential_step(psi: Tensor, potential: Tensor, kerr: Tensor) -> Tensor:
    """Twin of :func:`sem.ops.potential_step`. ``psi`` complex ``[..., D]``."""
    power = psi.real.square() + psi.imag.square()
    smallest_normal = torch.finfo(torch.float32).tiny
    phase = potential + kerr * (power / power.mean(-1, keepdim=True).clamp_min(smallest_normal))
    return psi * torch.complex(phase.cos(), phase.sin())


def ring_echo(
    psi: Tensor, potential: Tensor, kerr: Tensor, edge_weight: Tensor, half_dt: Tensor | float = 0.05
) -> Tensor:
    """Twin of :func:`sem.ops.ring_echo`. ``psi`` complex ``[..., D]``."""
    ring = Topology.ring(psi.shape[-1])
    turned = potential_step(cayley(psi, edge_weight, ring, half_dt), potential, kerr)
    return cayley(turned, edge_weight, ring, -half_dt)


def causal_conv(
    x: Tensor, taps: Tensor, bias: Tensor, theta: Tensor | None = None, history: Tensor | None = None
) -> Tensor:
    """Twin of :func:`sem.ops.causal_conv`. ``x`` complex ``[B, S, C]``, ``taps`` complex ``[W, C]``."""
    before = x.new_zeros(x.shape[0], len(taps) - 1, x.shape[2]) if history is None else history
    padded = torch.cat([before, x], 1)
    v = bias + sum(padded[:, k : k + x.shape[1]] * tap for k, tap in enumerate(taps))
    return v if theta is None else v * -torch.expm1(-(v.real.square() + v.imag.square()) * theta.exp())


def state_space(
    x: Tensor,
    dt_mag: Tensor,
    dt_phase: Tensor,
    into: Tensor,
    out_of: Tensor,
    decay: Tensor,
    frequency: Tensor,
    initial_state: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Twin of :func:`sem.ops.state_space`: :func:`scan` between two products. ``x`` complex ``[B, S, D]``, ``into``
    complex ``[G, N, D / G]``, ``out_of`` complex ``[G, D / G, N]``."""
    groups, states, width = into.shape
    drive = torch.einsum("gnp,bsgp->bsgn", into, x.unflatten(2, (groups, width))).flatten(2)
    every_state, last = scan(drive, dt_mag, dt_phase, decay, frequency, initial_state)
    return torch.einsum("gpn,bsgn->bsgp", out_of, every_state.unflatten(2, (groups, states))).flatten(2), last


def exit_waves(object: Tensor, probe: Tensor, patches: Patches) -> Tensor:
    """Twin of :func:`sem.ops.exit_waves`, ``object [H, W]`` and ``probe [M, N, N]`` or ``[J, M, N, N]`` complex."""
    side = patches.side
    patch = [object[y : y + side, x : x + side] for y, x in patches.corners.tolist()]
    return probe * (torch.stack(patch) if patch else object.new_empty(0, side, side)).unsqueeze(1)


def shift_ramp(spectrum: Tensor, shift: Tensor) -> Tensor:
    """Twin of :func:`sem.ops.shift_ramp`, ``spectrum`` complex ``[M, N, N]``, ``shift`` real ``[J, 2]``."""
    q = torch.fft.fftfreq(spectrum.shape[-1], dtype=shift.dtype, device=shift.device)
    turns = shift[:, 0, None, None] * q.unsqueeze(1) + shift[:, 1, None, None] * q
    return spectrum * torch.exp(-2j * math.pi * turns).unsqueeze(1)


def ptychographic_loss(
    object: Tensor,
    probe: Tensor,
    positions: Tensor,
    data: Tensor,
    *,
    weight: Tensor | None = None,
    background: Tensor | None = None,
    kind: str = "amplitude",
    scale: float = 1.0,
    subpixel: str = "fourier",
) -> Tensor:
    """Twin of :func:`sem.ops.ptychographic_loss`: the loss of every pattern, recorded; all numbers are finite."""
    whole = (positions.detach() + 0.5).floor()
    patches = Patches(whole.long(), probe.shape[-1], object.shape)
    if subpixel == "fourier":
        probe = torch.fft.ifft2(shift_ramp(torch.fft.fft2(probe), positions - whole))
    waves = torch.fft.fft2(exit_waves(object, probe, patches), norm="ortho")
    intensity = torch.view_as_real(waves).square().sum((1, -1)) + (0 if background is None else background)
    lit = intensity > 0
    amplitude = torch.where(lit, torch.where(lit, intensity, 1).sqrt(), 0)
    w = torch.ones_like(data) if weight is None else weight.expand_as(data)
    counts = data.square()
    if kind == "amplitude":
        loss = 0.5 * w * (amplitude - data).square()
    elif kind == "poisson":
        fit = intensity - counts + torch.xlogy(counts, counts) - torch.xlogy(counts, torch.where(lit, intensity, 1))
        loss = w * torch.where((counts > 0) & ~lit, torch.inf, fit)
    elif kind == "intensity":
        loss = 0.5 * w * (intensity - counts).square()
    else:
        loss = w * (amplitude - data).abs() / scale
    return torch.where(w > 0, loss, 0).sum((1, 2))
