"""AdamW with parameter groups.

Weight decay acts on matrices only: biases, gains and other vectors, and whatever a module marks with the
attribute ``_no_weight_decay``, are left alone. A parameter may carry ``_lr_scale``, a factor on its learning
rate.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

FUSED_DEVICES = ("cpu", "cuda", "xpu")


def parameter_groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Optimizer groups of the trainable parameters, one per (weight decay, learning-rate scale).

    The order follows ``model.named_parameters()`` and nothing else, so optimizer states load back into the
    right place. Shared parameters appear once.

    Args:
        model: any module; ``_no_weight_decay`` and ``_lr_scale`` on its parameters are honoured.
        weight_decay: decay of parameters with two or more dimensions.

    Returns:
        Dicts with ``params``, ``weight_decay`` and ``lr_scale``, as torch optimizers take them.
    """
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for parameter in model.parameters():
        if not parameter.requires_grad:
            continue
        decays = parameter.ndim >= 2 and not getattr(parameter, "_no_weight_decay", False)
        key = (weight_decay if decays else 0.0, float(getattr(parameter, "_lr_scale", 1.0)))
        groups.setdefault(key, []).append(parameter)
    return [
        {"params": parameters, "weight_decay": decay, "lr_scale": scale}
        for (decay, scale), parameters in groups.items()
    ]


def build_adamw(
    model: nn.Module, *, learning_rate: float, weight_decay: float, betas: tuple[float, float]
) -> torch.optim.AdamW:
    """AdamW over :func:`parameter_groups`: fused where torch has it, multi-tensor (``foreach``) elsewhere.

    Raises:
        ValueError: the model has no trainable parameter.

    Example:
        >>> optimizer = build_adamw(nn.Linear(2, 2), learning_rate=1e-3, weight_decay=0.1, betas=(0.9, 0.95))
        >>> [group["weight_decay"] for group in optimizer.param_groups]
        [0.1, 0.0]
    """
    groups = parameter_groups(model, weight_decay)
    if not groups:
        raise ValueError("model: expected at least one trainable parameter, got none")
    fused = _fused_works(parameter for group in groups for parameter in group["params"])
    implementation = {"fused": True} if fused else {"foreach": True}
    return torch.optim.AdamW(groups, lr=learning_rate, betas=betas, **implementation)


def set_learning_rate(optimizer: torch.optim.Optimizer, learning_rate: float) -> None:
    """Give every group ``learning_rate`` times its ``lr_scale``."""
    for group in optimizer.param_groups:
        group["lr"] = learning_rate * group.get("lr_scale", 1.0)


def _fused_works(parameters: Iterable[nn.Parameter]) -> bool:
    """The fused kernel takes real floating-point parameters on the devices it was written for."""
    return all(p.is_floating_point() and p.device.type in FUSED_DEVICES for p in parameters)
