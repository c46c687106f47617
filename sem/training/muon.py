"""Muon for linear maps, real and complex, with AdamW for whatever else a model learns."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.adamw import adamw

# An odd polynomial of degree 5 that takes small singular values up as fast as it can and those near 1 into (0.7, 1.2):
# K. Jordan et al., "Muon: an optimizer for hidden layers in neural networks", 2024.
_POLYNOMIAL = (3.4445, -4.7750, 2.0315)
_STEPS = 4
_LEAST_NORM = 1e-7


def polar_factor(matrices: Tensor, steps: int = _STEPS) -> Tensor:
    """Nearly the polar factor ``U V^H`` of ``U S V^H``: the directions of a map, each with a singular value near 1.

    A Newton-Schulz iteration of degree 5, in the dtype given. After four rounds, singular values that were not below
    1e-2 of the Frobenius norm are in about (0.7, 1.2).

    Args:
        matrices: real or complex ``[..., m, n]``.

    Example:
        >>> turned = polar_factor(torch.diag(torch.tensor([3.0, 1.0, 0.5])))
        >>> bool(((turned.diagonal() > 0.6) & (turned.diagonal() < 1.3)).all())
        True
    """
    a, b, c = _POLYNOMIAL
    x = matrices.reshape(-1, *matrices.shape[-2:])
    parts = torch.view_as_real(x.resolve_conj()) if x.is_complex() else x
    x = x / parts.flatten(1).norm(dim=1).clamp_min(_LEAST_NORM).view(-1, 1, 1)
    tall = x.shape[1] > x.shape[2]  # the smaller Gram matrix is the cheaper one
    for _ in range(steps):
        gram = x.mH @ x if tall else x @ x.mH
        factor = torch.baddbmm(gram, gram, gram, beta=b, alpha=c)
        x = torch.baddbmm(x, x, factor, beta=a) if tall else torch.baddbmm(x, factor, x, beta=a)
    return x.view(matrices.shape)


class MuonWithAdamW(Optimizer):
    """Muon on the groups that say what their linear maps are, AdamW on the others.

    Of a linear map, the momentum's polar factor is the step: every direction is learned as fast as the largest. A
    *complex* map, ``[..., out, in, 2]`` with real and imaginary part last, has the polar factor of its complex
    gradient; leading dimensions are a batch of maps. With momentum buffer ``m <- mu m + (1 - mu) g`` and Nesterov's
    look ahead ``g + mu (m - g)``, ``W <- (1 - lr wd) W - lr sqrt(max(1, out / in)) polar(...)``.

    Args:
        groups: dicts with ``params``, ``weight_decay`` and ``linear_map``: ``"real"`` (``[..., out, in]``),
            ``"complex"``, or None for AdamW.
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
            if group["linear_map"] not in (None, "real", "complex"):
                raise ValueError(f"linear_map: expected 'real', 'complex' or None, got {group['linear_map']!r}")

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
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
            steps = polar_factor(torch.cat(ahead)).split([len(maps) for maps in ahead])
            size = group["lr"] * max(1.0, rows / columns) ** 0.5
            for p, turned in zip(alike, steps, strict=True):
                blocks = torch.view_as_real(turned) if turned.is_complex() else turned
                p.mul_(1 - group["lr"] * group["weight_decay"]).add_(blocks.reshape(p.shape), alpha=-size)


def _maps(tensor: Tensor, kind: str) -> Tensor:
    """``tensor`` as a batch of matrices ``[n, out, in]``."""
    matrices = torch.view_as_complex(tensor) if kind == "complex" else tensor
    return matrices.reshape(-1, *matrices.shape[-2:])
