"""The propagator: within each token, a nonlinear phase step and a unitary step on a learned graph."""

from __future__ import annotations

from itertools import islice
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from sem.diagnostics import Diagnostics
from sem.ops import OnFailure, SolveStatus, Topology, laplacian_matvec, phase_entropy, pit, reference
from sem.ops.boundary import choice, count, finite, positive, wave_rows
from sem.ops.cayley import cayley_forward
from sem.ops.constants import Constant
from sem.ops.pit import RULES, bin_count
from sem.ops.potential_step import potential_step_forward
from sem.ops.ring_echo import ring_echo_forward
from sem.ops.soliton_step import soliton_step_forward
from sem.ops.solve import ON_FAILURE, SolveInfo, solution
from sem.precision import note_autocast, outside_autocast
from sem.propagator.hamiltonian import MultiScaleHamiltonian
from sem.propagator.potential import Potential, PotentialWeights

KERR = 0.01
"""Kerr rotation that a layer begins with, radians at mean intensity."""


@torch.no_grad()
def cayley_residual(
    psi: Tensor, psi_out: Tensor, edge_weight: Tensor, topology: Topology, half_dt: float, max_tokens: int = 64
) -> Tensor:
    """How far ``psi_out`` is from the Cayley step of ``psi``, whoever computed it and whatever they say.

    With ``y = (psi_out + psi) / 2`` it is ``||psi - (I + iaH) y|| / ||psi||``, ``a = half_dt``, in float64, on the CPU
    (some GPUs have no float64) and with the plain-torch Laplacian of :mod:`sem.ops.reference`.

    Args:
        psi, psi_out: complex ``[..., D]``.
        edge_weight: real ``[E]``.
        max_tokens: how many tokens, evenly spaced, are looked at; the first and the last are among them.

    Returns:
        float64 ``[min(N, max_tokens)]`` for ``N`` tokens; 0 where both waves are 0.

    Example:
        >>> from sem.ops import cayley
        >>> graph, psi = Topology.small_world(16, degree=4), torch.randn(5, 16, dtype=torch.complex64)
        >>> weight = torch.ones(graph.num_edges)
        >>> out = cayley(psi, weight, graph, 0.05)
        >>> float(cayley_residual(psi, out, weight, graph, 0.05).max()) < 1e-5
        True
        >>> float(cayley_residual(psi, psi, weight, graph, 0.05).max()) > 1e-2
        True
    """
    count = psi.shape[:-1].numel()
    chosen = torch.linspace(0, max(count - 1, 0), min(count, max_tokens), device=psi.device).round().long()
    before, after = (wave.reshape(-1, topology.nodes)[chosen].cpu().to(torch.complex128) for wave in (psi, psi_out))
    y = (after + before) / 2
    defect = before - y - 1j * half_dt * reference.laplacian_matvec(y, edge_weight.cpu().double(), topology)
    return defect.norm(dim=-1) / before.norm(dim=-1).clamp_min(torch.finfo(torch.float64).tiny)


class PropagatorWeights(NamedTuple):
    """What a layer computes with, from its parameters, as the compiled operators take it: float32, ``strength``,
    ``half_dt`` (of the step behind the phases) and ``ahead`` (of the step in front of them) 0-d, ``graph`` packed,
    ``ring`` the edges' weights in the order of a ring where an echo on one is all that the layer does."""

    potential: PotentialWeights | None
    ring: Tensor | None
    ahead: Tensor | None
    kerr: Tensor
    strength: Tensor
    edge_weight: Tensor
    half_dt: Tensor
    graph: Tensor


class CayleySolitonPropagator(nn.Module):
    """One propagator layer: potential, Kerr rotation, phase equalisation, Cayley step. It keeps every token's norm.

    With ``echo`` the wave first moves forward in time, meets the phases, and moves back: ``U^-1 e^{i phi} U``. Without
    phases that is nothing at all; with them, phases become interference, and amplitudes depend on the token.

    Args:
        dim: ``D``, the complex width of a token.
        dt: time step; the graph's own strength is learned through its edge weights.
        cg_max_iter, cg_tol: limits of the solve, per token.
        kerr: initial strength of the Kerr rotation, radians at mean intensity; learned per entry.
        laplacian_sparsity, num_scales, long_range_share, seed: the graph, see :class:`MultiScaleHamiltonian`.
        pit_enabled, pit_num_bins, pit_strength_init, pit_rule: phase equalisation, see :func:`sem.ops.pit`; its
            strength is learned and acts by its magnitude, at most 1.
        potential: whether there is a :class:`Potential`, of the wave as it comes.
        echo: move forward in front of the phases and back behind them.
        on_failure: what to do about tokens whose solve did not converge, see :func:`sem.ops.cayley`.
        nonlinear_alpha: the old name of ``kerr``. State dicts with its old name, ``alpha``, load too.

    Shapes: complex64 ``[..., dim]`` to the same. Computed in float32 inside and outside autocast, with equal bits.

    Raises:
        ValueError: a setting out of its range, or ``kerr`` under both of its names.

    Example:
        >>> layer = CayleySolitonPropagator(dim=64)
        >>> psi = torch.randn(2, 16, 64, dtype=torch.complex64)
        >>> torch.allclose(layer(psi).norm(dim=-1), psi.norm(dim=-1), rtol=1e-5)
        True
    """

    def __init__(
        self,
        dim: int,
        dt: float = 0.01,
        cg_max_iter: int = 50,
        cg_tol: float = 1e-5,
        kerr: float = KERR,
        laplacian_sparsity: int = 8,
        num_scales: int = 3,
        long_range_share: float = 0.25,
        pit_enabled: bool = True,
        pit_num_bins: int = 32,
        pit_strength_init: float = 0.01,
        pit_rule: str = "score",
        on_failure: OnFailure = "ignore",
        seed: int = 0,
        potential: bool = False,
        echo: bool = False,
        *,
        nonlinear_alpha: float | None = None,
    ) -> None:
        super().__init__()
        if nonlinear_alpha is not None:
            if kerr != KERR:
                raise ValueError(
                    f"nonlinear_alpha: expected none beside kerr = {kerr}, its new name, got {nonlinear_alpha}"
                )
            kerr = nonlinear_alpha
        # the operators behind the boundary take them as they are
        half_dt = finite("dt", dt) / 2
        self.half_dt = -half_dt if echo else half_dt
        self.echo = echo
        self.cg_max_iter = count("cg_max_iter", cg_max_iter)
        self.cg_tol = positive("cg_tol", cg_tol)
        self.pit_enabled = pit_enabled
        self.pit_num_bins = bin_count(pit_num_bins)
        self.pit_rule = choice("pit_rule", pit_rule, RULES)
        self._rule_number = RULES.index(pit_rule)
        self.on_failure = choice("on_failure", on_failure, ON_FAILURE)
        self.hamiltonian = MultiScaleHamiltonian(dim, laplacian_sparsity, num_scales, long_range_share, seed)
        order = self.hamiltonian.topology.ring_order() if echo and not pit_enabled and on_failure == "ignore" else None
        self._ring_order = None if order is None else Constant(order)
        self.potential = Potential(dim) if potential else None
        self.kerr = nn.Parameter(torch.full((dim,), kerr))
        # without equalisation the strength is no part of any gradient, which gradient reduction has to know
        self.pit_strength = nn.Parameter(torch.tensor(pit_strength_init), requires_grad=pit_enabled)
        self.kerr._no_weight_decay = True  # type: ignore[attr-defined]

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        former, name = f"{prefix}alpha", f"{prefix}kerr"
        if former in state_dict and name not in state_dict:
            state_dict[name] = state_dict.pop(former)
        super()._load_from_state_dict(state_dict, prefix, *rest)

    def weights(self) -> PropagatorWeights:
        """What the layer computes with, from its parameters."""
        device = self.kerr.device
        with outside_autocast(device.type):
            edge_weight = self.hamiltonian.edge_weight()
            # a strength that training drove below 0 would bunch the phases instead; (0, 1] is where entropy must rise
            strength = self.pit_strength.abs().clamp(max=1)
        half_dt = torch.full((), self.half_dt, dtype=torch.float32, device=device)
        ahead = -half_dt if self.echo else None
        potential = None if self.potential is None else self.potential.weights()
        graph = self.hamiltonian.topology.packed(device)
        ring = None if self._ring_order is None else edge_weight[self._ring_order.on(device)]
        return PropagatorWeights(potential, ring, ahead, self.kerr, strength, edge_weight, half_dt, graph)

    def forward(self, psi: Tensor, diagnostics: Diagnostics | None = None) -> Tensor:
        """``psi``, complex64 ``[..., dim]``, after the layer. ``diagnostics`` gets residuals and iterations of the
        solve, with ``pit_enabled`` the entropy of the phases before and after equalisation and, where it is
        ``thorough``, the residual in float64."""
        weights = self.weights()
        if diagnostics is None:
            return self.step(psi, weights)
        out, info = self.step(psi, weights, return_info=True)
        with outside_autocast(psi.device.type):
            _record_solve(diagnostics, info)
            self._record_waves(diagnostics, psi, out, weights)
        return out

    def step(self, psi: Tensor, weights: PropagatorWeights, return_info: bool = False) -> Any:
        """What :meth:`forward` does, with :meth:`weights` of now or before; with the solve's report if asked. ``psi``
        may be real blocks ``[..., dim, 2]`` too."""
        note_autocast("propagator", psi.device.type)
        rows, restore, shape = wave_rows("psi", psi, len(weights.kerr))
        if weights.ring is not None and weights.ahead is not None:
            out = restore(ring_echo_forward(rows, _values(weights, rows), weights.kerr, weights.ring, weights.ahead))
            return (out, self._checked(rows, out, weights, shape)) if return_info else out
        turned, ahead = self._turned(rows, weights, return_info)
        limits = self.cg_tol, self.cg_max_iter, self.on_failure
        if self.pit_enabled:  # the wave between the two steps is not kept for the backward pass
            _, _, _, *parameters = weights
            args: tuple[Any, ...] = (turned, *parameters, self.pit_num_bins, self._rule_number, *limits)
            name, operator = "soliton_step", soliton_step_forward
        else:
            args = (turned, weights.edge_weight, weights.half_dt, weights.graph, *limits)
            name, operator = "cayley", cayley_forward
        found = solution(name, operator, args, restore, shape, self.on_failure, return_info)
        if ahead is None:
            return found
        out, info = found
        return out, _worse(info, ahead)

    def _turned(
        self, rows: Tensor, weights: PropagatorWeights, return_info: bool = False, kerr: bool | None = None
    ) -> tuple[Tensor, SolveInfo | None]:
        """Real blocks ``rows [N, dim, 2]`` as the last operator takes them: turned by the potential and, where that is
        not the operator's affair, by the Kerr rotation; and the report of the step in front, if there is one and it was
        asked for."""
        kerr = not self.pit_enabled if kerr is None else kerr
        turns = kerr or weights.potential is not None
        potential = _values(weights, rows) if turns else None
        info = None
        if weights.ahead is not None:
            args = (rows, weights.edge_weight, weights.ahead, weights.graph)
            limits = self.cg_tol, self.cg_max_iter, self.on_failure
            found = solution(
                "cayley", cayley_forward, (*args, *limits), _as_it_is, rows.shape[:1], self.on_failure, return_info
            )
            rows, info = found if return_info else (found, None)
        if potential is None:
            return rows, info
        return potential_step_forward(rows, potential, weights.kerr if kerr else torch.zeros_like(weights.kerr)), info

    @torch.no_grad()
    def _checked(self, rows: Tensor, out: Tensor, weights: PropagatorWeights, shape: tuple[int, ...]) -> SolveInfo:
        """The report of the step behind the phases where it was solved by elimination: no iteration, and the residual
        that it has."""
        turned = self._turned(rows, weights, kerr=True)[0]
        after = wave_rows("psi", out, len(weights.kerr))[0]
        y = torch.view_as_complex(after + turned) / 2
        moved = laplacian_matvec(y, weights.edge_weight, self.hamiltonian.topology)
        defect = torch.view_as_complex(turned) - y - 1j * weights.half_dt * moved
        norm = torch.linalg.vector_norm(turned, dim=(1, 2))
        tiny = torch.finfo(norm.dtype).tiny
        residual = (torch.linalg.vector_norm(defect, dim=1) / norm.clamp_min(tiny)).view(shape)
        status = torch.where(residual <= self.cg_tol, SolveStatus.CONVERGED, SolveStatus.STAGNATED)
        status = torch.where(residual.isfinite(), status, SolveStatus.NONFINITE).to(torch.int32)
        return SolveInfo(status, torch.zeros_like(status), residual)

    @torch.no_grad()
    def _record_waves(self, diagnostics: Diagnostics, psi: Tensor, out: Tensor, weights: PropagatorWeights) -> None:
        rows, restore, _ = wave_rows("psi", psi, len(weights.kerr))
        turned = restore(self._turned(rows, weights, kerr=True)[0])
        if self.pit_enabled:
            diagnostics.record("phase_entropy_before", phase_entropy(turned, self.pit_num_bins))
            moved = restore(self._turned(rows, weights)[0])
            turned = pit(moved, None, weights.strength, self.pit_num_bins, self.pit_rule, kerr=weights.kerr)
            diagnostics.record("phase_entropy_after", phase_entropy(turned, self.pit_num_bins))
        if diagnostics.thorough:
            residual = cayley_residual(turned, out, weights.edge_weight, self.hamiltonian.topology, self.half_dt)
            diagnostics.record("cg_true_residual", residual, "max")


def _values(weights: PropagatorWeights, rows: Tensor) -> Tensor:
    """The potential of real blocks ``rows [N, dim, 2]``, zeros if there is none."""
    return rows.new_zeros(rows.shape[:2]) if weights.potential is None else weights.potential.values(rows)


def _as_it_is(rows: Tensor) -> Tensor:
    return rows


def _worse(one: SolveInfo, other: SolveInfo) -> SolveInfo:
    """The report of two solves of each token."""
    status = torch.maximum(one.status, other.status.view_as(one.status))
    residual = torch.maximum(one.residual, other.residual.view_as(one.residual))
    return SolveInfo(status, one.iterations + other.iterations.view_as(one.iterations), residual)


class CayleySolitonStack(nn.Module):
    """``num_layers`` :class:`CayleySolitonPropagator` in a row; other arguments are theirs, seeds differ per layer.

    Args:
        dim: ``D``, the complex width of a token.
        num_layers: how many.
        seed: of the first layer's graph; each further layer adds 1000.
        layer: arguments of :class:`CayleySolitonPropagator`, the same for all.

    Shapes: complex64 ``[..., dim]`` to the same.

    Example:
        >>> stack = CayleySolitonStack(32, 2, potential=True)
        >>> psi = torch.randn(3, 5, 32, dtype=torch.complex64)
        >>> torch.allclose(stack(psi).norm(dim=-1), psi.norm(dim=-1), rtol=1e-4)
        True
    """

    def __init__(self, dim: int, num_layers: int, *, seed: int = 0, **layer: object) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            CayleySolitonPropagator(dim, seed=seed + 1000 * k, **layer)  # type: ignore[arg-type]
            for k in range(num_layers)
        )

    def forward(self, psi: Tensor, diagnostics: Diagnostics | None = None, layers: slice = slice(None)) -> Tensor:
        """The layers, or some of them."""
        before = psi
        for layer in islice(self.layers, layers.start, layers.stop):
            psi = layer(psi, diagnostics)
        if diagnostics is not None and psi is not before:
            _record_waves(diagnostics, before, psi)
        return psi

    def weights(self) -> tuple[PropagatorWeights, ...]:
        """Those of the layers."""
        return tuple(layer.weights() for layer in self.layers)  # type: ignore[operator]

    def step(self, psi: Tensor, weights: tuple[PropagatorWeights, ...], layers: slice = slice(None)) -> Tensor:
        """What :meth:`forward` does, with :meth:`weights` of now or before."""
        for layer, held in zip(islice(self.layers, layers.start, layers.stop), weights[layers], strict=True):
            psi = layer.step(psi, held)  # type: ignore[operator]
        return psi


@torch.no_grad()
def _record_solve(diagnostics: Diagnostics, info: SolveInfo) -> None:
    diagnostics.record("cg_residual", info.residual, "max")
    diagnostics.record("cg_iterations_mean", info.iterations)
    diagnostics.record("cg_iterations_max", info.iterations, "max")
    diagnostics.record("cg_unconverged", (~info.converged).float())


@torch.no_grad()
def _record_waves(diagnostics: Diagnostics, before: Tensor, after: Tensor) -> None:
    # Intel's client GPUs have no float64; float32 rounds these sums by about 1e-6
    wide = torch.float32 if before.device.type == "xpu" else torch.float64

    def norm2(psi: Tensor) -> Tensor:
        return torch.view_as_real(psi).to(wide).square().sum((-1, -2))

    kept = norm2(before)
    change = (norm2(after) - kept).abs() / kept.clamp_min(torch.finfo(kept.dtype).tiny)
    diagnostics.record("unitarity_deviation", change, "max")
    unit = after / after.abs().clamp_min(torch.finfo(torch.float32).tiny)
    diagnostics.record("phase_coherence", unit.mean(-1).abs())
