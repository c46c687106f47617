"""Optimizers with parameter groups: Adam, AdamW, SGD, and muon for the maps between channels beside AdamW.

With gradient ``g``, learning rate ``lr``, weight decay ``wd`` and the moments' decays ``b1``, ``b2``, at step ``k``:

- ``adam``: ``g <- g + wd w``, ``m <- b1 m + (1 - b1) g``, ``v <- b2 v + (1 - b2) g²``,
  ``w <- w - lr (m / (1 - b1^k)) / (sqrt(v / (1 - b2^k)) + 1e-8)``;
- ``adamw``: the same, with ``w <- (1 - lr wd) w`` in place of the decay in the gradient;
- ``sgd``: ``g <- g + wd w``, ``v <- mu v + g``, which starts as ``g``, and ``w <- w - lr (g + mu v)`` by Nesterov or
  ``w <- w - lr v``;
- ``muon``: :class:`sem.training.muon.MuonWithAdamW`.

Weight decay acts on matrices only: biases, gains and other vectors, and whatever a module marks with the
attribute ``_no_weight_decay``, are left alone. A parameter may carry ``_lr_scale``, a factor on its learning
rate, and ``_linear_map``, which says that it is one, and how it lies there (:data:`sem.training.muon.KINDS`).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

from sem.optimization_settings import OptimizationSettings, OptimizerName, require_choice
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


def build_optimizer(model: nn.Module, settings: OptimizationSettings) -> torch.optim.Optimizer:
    """The optimizer that ``settings`` describe, over :func:`parameter_groups` of ``model``.

    torch's fused kernel where it takes the parameters, its multi-tensor one (``foreach``) elsewhere. Every group names
    its optimizer, so that a checkpoint does.

    Raises:
        ValueError: the model has no trainable parameter, or there is no such optimizer.

    Example:
        >>> settings = OptimizationSettings(optimizer="adamw", weight_decay=0.1)
        >>> [group["weight_decay"] for group in build_optimizer(nn.Linear(2, 2), settings).param_groups]
        [0.1, 0.0]
    """
    name = settings.optimizer
    require_choice("optimizer", name, OptimizerName)
    groups = parameter_groups(model, settings.weight_decay, maps=name == "muon")
    if not groups:
        raise ValueError("model: expected at least one trainable parameter, got none")
    for group in groups:
        group["optimizer"] = name
        if group.get("linear_map") is not None:
            group["lr_scale"] *= settings.muon_learning_rate / settings.learning_rate
    fused = _fused_works(parameter for group in groups for parameter in group["params"])
    rate, betas = settings.learning_rate, (settings.beta1, settings.beta2)
    if name == "muon":
        return MuonWithAdamW(groups, lr=rate, betas=betas, momentum=settings.muon_momentum, fused=fused)
    if name == "sgd":  # torch's fused kernel fails on a parameter that has its first gradient after the others
        momentum = settings.momentum
        return torch.optim.SGD(groups, rate, momentum, nesterov=settings.nesterov and momentum > 0, foreach=True)
    kind = torch.optim.Adam if name == "adam" else torch.optim.AdamW
    return kind(groups, lr=rate, betas=betas, **({"fused": True} if fused else {"foreach": True}))


def set_learning_rate(optimizer: torch.optim.Optimizer, learning_rate: float) -> None:
    """Give every group ``learning_rate`` times its ``lr_scale``."""
    for group in optimizer.param_groups:
        group["lr"] = learning_rate * group.get("lr_scale", 1.0)


def _fused_works(parameters: Iterable[nn.Parameter]) -> bool:
    """The fused kernel takes real floating-point parameters on the devices it was written for."""
    return all(p.is_floating_point() and p.device.type in FUSED_DEVICES for p in parameters)


def load_optimizer_state(optimizer: torch.optim.Optimizer, state: Any) -> None:
    """Give ``optimizer`` the state that one like it returned from ``state_dict``: its moments and counts.

    What it was configured with, weight decay and betas say, stays its own. Everything is looked at before anything is
    loaded, since fused kernels trust the sizes of what they are given.

    Raises:
        ValueError: it is another optimizer's, or an entry is missing, or of another type, shape or dtype.
    """
    if not isinstance(state, dict) or not isinstance(state.get("state"), dict):
        raise ValueError("optimizer: expected entries 'state' and 'param_groups'")
    groups = state.get("param_groups")
    if isinstance(groups, list) and groups and isinstance(groups[0], dict):
        name, received = _name_of(optimizer.param_groups[0]), _name_of(groups[0])
        if name != received:
            raise ValueError(f"optimizer: expected the state of {name!r}, got that of {received!r}")
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
            _check_entry(f"optimizer: parameter {k}", state["state"].get(k, {}), parameter, own)
    strangers = sorted(map(repr, state["state"].keys() - set(range(number))))
    if strangers:
        raise ValueError(f"optimizer: expected state of {number} parameters, got some of {', '.join(strangers)}")
    options = [{key: value for key, value in group.items() if key != "params"} for group in optimizer.param_groups]
    optimizer.load_state_dict(state)
    for group, own_options in zip(optimizer.param_groups, options, strict=True):
        group.update(own_options)


def _name_of(group: dict[str, Any]) -> Any:
    """The optimizer of a group of parameters, also of one that was saved before groups named it."""
    unnamed = "muon" if "linear_map" in group else "sgd" if "nesterov" in group else "adamw"
    return group.get("optimizer", unnamed)


def _entries(group: dict[str, Any]) -> list[str]:
    """What the optimizer keeps of each parameter of a group: the number ``step``, and what is like the parameter."""
    if _name_of(group) == "sgd":
        return ["momentum_buffer"] if group["momentum"] > 0 else []
    if group.get("linear_map") is not None:
        return ["momentum_buffer"]
    return ["exp_avg", "exp_avg_sq", "step"]


def _check_entry(name: str, entry: Any, parameter: nn.Parameter, group: dict[str, Any]) -> None:
    """Of one parameter: nothing, if it never had a gradient, or everything."""
    if not isinstance(entry, dict):
        raise ValueError(f"{name}: expected named tensors, got {type(entry).__name__}")
    expected = {key: torch.Size() if key == "step" else parameter.shape for key in _entries(group)}
    if entry and entry.keys() != expected.keys():
        raise ValueError(f"{name}: expected {sorted(expected)}, got {sorted(map(str, entry))}")
    for key, value in entry.items():
        if not isinstance(value, torch.Tensor):
            raise ValueError(f"{name}: expected {key} to be a tensor, got {type(value).__name__}")
        dtype = torch.float32 if key == "step" else parameter.dtype
        if value.shape != expected[key] or value.dtype != dtype or value.layout != torch.strided:
            got = f"{value.dtype} {list(value.shape)}"
            raise ValueError(f"{name}: expected {key} to be {dtype} {list(expected[key])}, got {got}")
