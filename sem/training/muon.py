"""Muon for linear maps, real and complex, with AdamW for whatever else a model learns."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.adamw import adamw

# Odd polynomials a x + b x^3 + c x^5, each the best approximation of 1 (in the largest error) on the interval where the
# one before leaves the singular values, the first on [0.02, 1]: N. Amsel et al., "The Polar Express", 2025.
_ROUNDS = ((7.7110, -22.1138, 16.2487), (3.2153, -2.4112, 0.5013), (2.2183, -1.5940, 0.4107))
_LEAST_NORM = 1e-7
KINDS = ("real", "complex", "filters", "transposed", "modes")
"""How a parameter holds a linear map, or several: see :class:`MuonWithAdamW`."""


def polar_factor(matrices: Tensor) -> Tensor:
    """Nearly the polar factor ``U V^H`` of ``U S V^H``: the directions of a map, each with a singular value near 1.

    Three rounds of Newton and Schulz of degree 5, in the dtype given. Singular values of at least 0.02 of the
    Frobenius norm come to (0.9, 1.1), smaller ones to at least 45 times what they were.

    Args:
        matrices: real or complex ``[..., m, n]``.

    Example:
        >>> turned = polar_factor(torch.diag(torch.tensor([3.0, 1.0, 0.5])))
        >>> bool(((turned.diagonal() > 0.9) & (turned.diagonal() < 1.1)).all())
        True
    """
    x = matrices.reshape(-1, *matrices.shape[-2:])
    parts = torch.view_as_real(x.resolve_conj()) if x.is_complex() else x
    x = x / parts.flatten(1).norm(dim=1).clamp_min(_LEAST_NORM).view(-1, 1, 1)
    tall = x.shape[1] > x.shape[2]  # the smaller Gram matrix is the cheaper one
    for a, b, c in _ROUNDS:
        gram = x.mH @ x if tall else x @ x.mH
        factor = torch.baddbmm(gram, gram, gram, beta=b, alpha=c)
        x = torch.baddbmm(x, x, factor, beta=a) if tall else torch.baddbmm(x, factor, x, beta=a)
    return x.view(matrices.shape)


def product_dtype(matrices: Tensor) -> torch.dtype:
    """Of the products in a step: bfloat16 where the device multiplies real matrices faster in it, else their own.

    A direction's singular value is within a tenth of 1 anyhow; bfloat16 adds a hundredth to that.
    """
    if matrices.dtype != torch.float32:
        return matrices.dtype
    if matrices.device.type == "cpu":
        able = _cpu_capabilities()
        return torch.bfloat16 if able.get("avx512_bf16") or able.get("amx_bf16") else torch.float32
    return torch.bfloat16 if matrices.device.type in ("cuda", "xpu") else torch.float32


@cache
def _cpu_capabilities() -> dict[str, Any]:
    read = getattr(torch.cpu, "get_capabilities", None)  # not in torch 2.6
    return dict(read()) if read is not None else {}


class MuonWithAdamW(Optimizer):
    """Muon on the groups that say what their linear maps are, AdamW on the others.

    Of a linear map, the momentum's polar factor is the step: every direction is learned as fast as the largest. A
    *complex* map, ``[..., out, in, 2]`` with real and imaginary part last, has the polar factor of its complex
    gradient; leading dimensions are a batch of maps. The ``filters`` of a convolution are one map, ``[out, ...]``, as
    are those of a ``transposed`` one, ``[in, ...]``, and ``modes``, ``[out, in, ..., 2]``, a complex map for each index
    in between, as for each frequency of a spectrum. With momentum buffer ``m <- mu m + (1 - mu) g`` and Nesterov's look
    ahead ``g + mu (m - g)``, ``W <- (1 - lr wd) W - lr sqrt(max(1, out / in)) polar(...)``.

    Args:
        groups: dicts with ``params``, ``weight_decay`` and ``linear_map``: ``"real"`` (``[..., out, in]``),
            ``"complex"``, ``"filters"``, ``"transposed"``, ``"modes"``, or None for AdamW.
        lr: learning rate of every group that names none.
        betas, eps: of AdamW.
        momentum: ``mu``.
        fused: AdamW by torch's fused kernel.

    Example:
        >>> layer = torch.nn.Linear(4, 4, bias=False)
        >>> optimizer = MuonWithAdamW([{"params": layer.parameters(), "linear_map": "real"}], lr=0.1)
        >>> layer(torch.ones(1, 4)).sum().backward()
        >>> optimizer.step()
    """

    def __init__(
        self,
        groups: Iterable[dict[str, Any]],
        lr: float,
        betas: tuple[float, float] = (0.9, 0.95),
        eps: float = 1e-8,
        momentum: float = 0.95,
        weight_decay: float = 0.0,
        fused: bool = False,
    ) -> None:
        defaults = {"lr": lr, "betas": betas, "eps": eps, "momentum": momentum, "weight_decay": weight_decay}
        super().__init__(groups, {**defaults, "fused": fused, "linear_map": None})
        for group in self.param_groups:
            if group["linear_map"] not in (None, *KINDS):
                raise ValueError(f"linear_map: expected one of {', '.join(KINDS)}, None, got {group['linear_map']!r}")

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Update every parameter that has a gradient; returns the loss of ``closure``, if one is given."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            parameters = [p for p in group["params"] if p.grad is not None]
            if not parameters:
                continue
            if group["linear_map"] is None:
                self._adamw(parameters, group)
            else:
                self._muon(parameters, group)
        return loss

    def _adamw(self, parameters: list[Tensor], group: dict[str, Any]) -> None:
        for p in parameters:
            if not self.state[p]:
                device = p.device if group["fused"] else None
                self.state[p].update(
                    step=torch.zeros((), dtype=torch.float32, device=device),
                    exp_avg=torch.zeros_like(p),
                    exp_avg_sq=torch.zeros_like(p),
                )
        states = [self.state[p] for p in parameters]
        beta1, beta2 = group["betas"]
        adamw(
            parameters,
            [p.grad for p in parameters if p.grad is not None],
            [state["exp_avg"] for state in states],
            [state["exp_avg_sq"] for state in states],
            [],
            [state["step"] for state in states],
            foreach=not group["fused"],
            fused=group["fused"],
            amsgrad=False,
            beta1=beta1,
            beta2=beta2,
            lr=group["lr"],
            weight_decay=group["weight_decay"],
            eps=group["eps"],
            maximize=False,
        )

    def _muon(self, parameters: list[Tensor], group: dict[str, Any]) -> None:
        momentum, of_shape = group["momentum"], dict[tuple[int, ...], list[Tensor]]()
        for p in parameters:
            of_shape.setdefault(_maps(p, group["linear_map"]).shape[-2:], []).append(p)
        for (rows, columns), alike in of_shape.items():  # one batch of products for all maps of a shape
            ahead = []
            for p in alike:
                if not self.state[p]:
                    self.state[p]["momentum_buffer"] = torch.zeros_like(p)
                grad = p.grad
                assert grad is not None
                buffer = self.state[p]["momentum_buffer"].lerp_(grad, 1 - momentum)
                ahead.append(_maps(torch.lerp(grad, buffer, momentum), group["linear_map"]))
            together = torch.cat(ahead)
            steps = polar_factor(together.to(product_dtype(together))).split([len(maps) for maps in ahead])
            size = group["lr"] * max(1.0, rows / columns) ** 0.5
            for p, turned in zip(alike, steps, strict=True):
                step = _as_parameter(turned, group["linear_map"], p)
                p.mul_(1 - group["lr"] * group["weight_decay"]).add_(step, alpha=-size)


def _maps(tensor: Tensor, kind: str) -> Tensor:
    """``tensor`` as a batch of matrices ``[n, out, in]``."""
    if kind == "filters":
        return tensor.flatten(1).unsqueeze(0)
    if kind == "transposed":
        return tensor.flatten(1).mT.unsqueeze(0)
    matrices = torch.view_as_complex(tensor) if kind in ("complex", "modes") else tensor
    if kind == "modes":
        return matrices.flatten(2).permute(2, 0, 1)
    return matrices.reshape(-1, *matrices.shape[-2:])


def _as_parameter(maps: Tensor, kind: str, parameter: Tensor) -> Tensor:
    """What :func:`_maps` made of a tensor of the parameter's shape, in that shape again."""
    blocks = torch.view_as_real(maps) if maps.is_complex() else maps
    if kind == "modes":
        blocks = blocks.permute(1, 2, 0, 3)
    return (blocks.mT if kind == "transposed" else blocks).reshape(parameter.shape)
