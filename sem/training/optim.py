"""Optimizers with parameter groups: AdamW, and muon for the maps between channels beside it.

Weight decay acts on matrices only: biases, gains and other vectors, and whatever a module marks with the
attribute ``_no_weight_decay``, are left alone. A parameter may carry ``_lr_scale``, a factor on its learning
rate, and ``_linear_map``, which says that it is one, ``"real"`` or ``"complex"``.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

from sem.config_sections import TrainingConfig
from sem.training.muon import MuonWithAdamW

FUSED_DEVICES = ("cpu", "cuda", "xpu")


def parameter_groups(model: nn.Module, weight_decay: float, maps: bool = False) -> list[dict[str, Any]]:
    """Optimizer groups of the trainable parameters, one per (weight decay, learning-rate scale, kind of linear map).

    The order follows ``model.named_parameters()`` and nothing else, so optimizer states load back into the
    right place. Shared parameters appear once.

    Args:
        model: any module; what its parameters are marked with is honoured.
        weight_decay: decay of parameters with two or more dimensions.
        maps: tell linear maps apart from the rest.

    Returns:
        Dicts with ``params``, ``weight_decay`` and ``lr_scale``, as torch optimizers take them, and ``linear_map``
        where maps are told apart: None for the rest.
    """
    groups: dict[tuple[float, float, str | None], list[nn.Parameter]] = {}
    for parameter in model.parameters():
        if not parameter.requires_grad:
            continue
        decays = parameter.ndim >= 2 and not getattr(parameter, "_no_weight_decay", False)
        kind = getattr(parameter, "_linear_map", None) if maps else None
        key = (weight_decay if decays else 0.0, float(getattr(parameter, "_lr_scale", 1.0)), kind)
        groups.setdefault(key, []).append(parameter)
    return [
        {"params": parameters, "weight_decay": decay, "lr_scale": scale, **({"linear_map": kind} if maps else {})}
        for (decay, scale, kind), parameters in groups.items()
    ]


def build_optimizer(model: nn.Module, training: TrainingConfig) -> torch.optim.Optimizer:
    """The optimizer that ``training.optimizer`` names, over :func:`parameter_groups` of ``model``.

    Raises:
        ValueError: the model has no trainable parameter, or there is no such optimizer.

    Example:
        >>> type(build_optimizer(nn.Linear(2, 2), TrainingConfig(optimizer="adamw"))).__name__
        'AdamW'
    """
    betas = training.beta1, training.beta2
    if training.optimizer == "adamw":
        rate, decay = training.learning_rate, training.weight_decay
        return build_adamw(model, learning_rate=rate, weight_decay=decay, betas=betas)
    if training.optimizer != "muon":
        raise ValueError(f"training.optimizer = {training.optimizer!r}: expected adamw or muon")
    groups = _some(parameter_groups(model, training.weight_decay, maps=True))
    for group in groups:
        if group["linear_map"] is not None:
            group["lr_scale"] *= training.muon_learning_rate / training.learning_rate
    return MuonWithAdamW(
        groups,
        lr=training.learning_rate,
        betas=betas,
        momentum=training.muon_momentum,
        fused=_fused_works(parameter for group in groups for parameter in group["params"]),
    )


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
    groups = _some(parameter_groups(model, weight_decay))
    fused = _fused_works(parameter for group in groups for parameter in group["params"])
    implementation = {"fused": True} if fused else {"foreach": True}
    return torch.optim.AdamW(groups, lr=learning_rate, betas=betas, **implementation)


def set_learning_rate(optimizer: torch.optim.Optimizer, learning_rate: float) -> None:
    """Give every group ``learning_rate`` times its ``lr_scale``."""
    for group in optimizer.param_groups:
        group["lr"] = learning_rate * group.get("lr_scale", 1.0)


def _some(groups: list[dict[str, Any]]) -> list[dict[str, Any]]:
    if not groups:
        raise ValueError("model: expected at least one trainable parameter, got none")
    return groups


def _fused_works(parameters: Iterable[nn.Parameter]) -> bool:
    """The fused kernel takes real floating-point parameters on the devices it was written for."""
    return all(p.is_floating_point() and p.device.type in FUSED_DEVICES for p in parameters)


def load_optimizer_state(optimizer: torch.optim.Optimizer, state: Any) -> None:
    """Give ``optimizer`` the state that one like it returned from ``state_dict``: its moments and counts.

    What it was configured with, weight decay and betas say, stays its own. Everything is looked at before anything is
    loaded, since fused kernels trust the sizes of what they are given.

    Raises:
        ValueError: an entry is missing, or of another type, shape or dtype.
    """
    if not isinstance(state, dict) or not isinstance(state.get("state"), dict):
        raise ValueError("optimizer: expected entries 'state' and 'param_groups'")
    groups = state.get("param_groups")
    if not isinstance(groups, list) or len(groups) != len(optimizer.param_groups):
        count = len(groups) if isinstance(groups, list) else "none"
        raise ValueError(f"optimizer: expected {len(optimizer.param_groups)} groups of parameters, got {count}")
    number = 0
    for index, (own, saved) in enumerate(zip(optimizer.param_groups, groups, strict=True)):
        numbers = list(range(number, number + len(own["params"])))
        number += len(numbers)
        if not isinstance(saved, dict) or saved.get("params") != numbers:
            raise ValueError(f"optimizer: expected group {index} to have {len(numbers)} parameters")
        if saved.get("linear_map") != own.get("linear_map"):
            kinds = f"{own.get('linear_map')!r}, got {saved.get('linear_map')!r}"
            raise ValueError(f"optimizer: expected linear_map of group {index} to be {kinds}")
        for k, parameter in zip(numbers, own["params"], strict=True):
            _check_entry(f"optimizer: parameter {k}", state["state"].get(k, {}), parameter, own.get("linear_map"))
    strangers = sorted(map(repr, state["state"].keys() - set(range(number))))
    if strangers:
        raise ValueError(f"optimizer: expected state of {number} parameters, got some of {', '.join(strangers)}")
    options = [{key: value for key, value in group.items() if key != "params"} for group in optimizer.param_groups]
    optimizer.load_state_dict(state)
    for group, own_options in zip(optimizer.param_groups, options, strict=True):
        group.update(own_options)


def _check_entry(name: str, entry: Any, parameter: nn.Parameter, linear_map: str | None) -> None:
    """Of one parameter: nothing, if it never had a gradient, or everything."""
    if not isinstance(entry, dict):
        raise ValueError(f"{name}: expected named tensors, got {type(entry).__name__}")
    expected = {"exp_avg": parameter.shape, "exp_avg_sq": parameter.shape, "step": torch.Size()}
    if linear_map is not None:
        expected = {"momentum_buffer": parameter.shape}
    if entry and entry.keys() != expected.keys():
        raise ValueError(f"{name}: expected {sorted(expected)}, got {sorted(map(str, entry))}")
    for key, value in entry.items():
        if not isinstance(value, torch.Tensor):
            raise ValueError(f"{name}: expected {key} to be a tensor, got {type(value).__name__}")
        dtype = torch.float32 if key == "step" else parameter.dtype
        if value.shape != expected[key] or value.dtype != dtype or value.layout != torch.strided:
            got = f"{value.dtype} {list(value.shape)}"
            raise ValueError(f"{name}: expected {key} to be {dtype} {list(expected[key])}, got {got}")
