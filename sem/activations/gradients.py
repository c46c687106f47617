"""Statistics of gradients, group by group, under the names that activations have."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import torch
from torch import Tensor, nn

from sem.activations.layers import layers_of
from sem.activations.moments import Number


def layer_parameters(model: nn.Module, pattern: str = "*") -> dict[str, list[nn.Parameter]]:
    """The trainable parameters that each layer holds itself, by the layer's name; layers without any are left out.

    Args:
        pattern: of names, as :func:`sem.activations.layers_of` takes it.

    Raises:
        ValueError: no name matches.

    Example:
        >>> model = nn.Sequential(nn.Linear(2, 3), nn.GELU())
        >>> {name: len(parameters) for name, parameters in layer_parameters(model).items()}
        {'0': 2}
    """
    groups = {
        name: [parameter for parameter in module.parameters(recurse=False) if parameter.requires_grad]
        for name, module in layers_of(model, pattern).items()
    }
    return {name: parameters for name, parameters in groups.items() if parameters}


@torch.no_grad()
def gradient_statistics(
    groups: Mapping[str, Iterable[nn.Parameter]], clip: Callable[[], object] | None = None
) -> dict[str, dict[str, Number]]:
    """Statistics of the gradients that a backward pass left, before they are clipped.

    - ``grad_norm``: 2-norm of the group's gradient;
    - ``relative_grad_norm``: that over the 2-norm of its parameters; None where those are 0;
    - ``clipped_share``, with ``clip``: the share of its gradient's entries, of those that are not 0, that clipping
      changed, whatever its rule.

    Args:
        groups: parameters by the group's name; those without a gradient count as 0. See :func:`layer_parameters`.
        clip: clips the gradients in place; called once, and its effect stays. It costs a copy of the gradients.

    Example:
        >>> weight = nn.Parameter(torch.tensor([3.0, 4.0]))
        >>> weight.grad = torch.tensor([0.0, 2.0])
        >>> gradient_statistics({"w": [weight]}, lambda: nn.utils.clip_grad_value_([weight], 1.0))
        {'w': {'grad_norm': 2.0, 'relative_grad_norm': 0.4, 'clipped_share': 1.0}}
    """
    members = {name: list(parameters) for name, parameters in groups.items()}
    gradients = {name: [p.grad for p in parameters if p.grad is not None] for name, parameters in members.items()}
    numbers = _fetched(
        {(name, "grad"): _norm(held) for name, held in gradients.items()}
        | {(name, "weight"): _norm(parameters) for name, parameters in members.items()}
    )
    result: dict[str, dict[str, Number]] = {}
    for name in members:
        norm, size = numbers[name, "grad"], numbers[name, "weight"]
        result[name] = {"grad_norm": norm, "relative_grad_norm": norm / size if size else None}
    if clip is None:
        return result
    before = {name: [gradient.clone() for gradient in held] for name, held in gradients.items()}
    clip()
    counts = _fetched(
        {(name, "changed"): _total(_changed(*pair) for pair in zip(before[name], gradients[name], strict=True))
         for name in members}
        | {(name, "all"): _total((old != 0).sum() for old in before[name]) for name in members}
    )  # fmt: skip
    for name in members:
        there = counts[name, "all"]
        result[name]["clipped_share"] = counts[name, "changed"] / there if there else 0.0
    return result


def flat(statistics: Mapping[str, Mapping[str, Number]]) -> dict[str, float]:
    """Statistics as figures of a log, ``layer/statistic``; those that are None are left out.

    Example:
        >>> flat({"head": {"grad_norm": 2.0, "relative_grad_norm": None}})
        {'head/grad_norm': 2.0}
    """
    return {
        f"{name}/{stat}": float(value)
        for name, values in statistics.items()
        for stat, value in values.items()
        if value is not None
    }


def _norm(tensors: Iterable[Tensor]) -> Tensor:
    norms = [torch.linalg.vector_norm(tensor, dtype=_norm_dtype(tensor)) for tensor in tensors]
    device = norms[0].device if norms else None
    return torch.linalg.vector_norm(torch.stack([norm.to(device) for norm in norms])) if norms else torch.zeros(())


def _norm_dtype(tensor: Tensor) -> torch.dtype | None:
    """float32 for what is narrower; its own, which is None, for all else."""
    return torch.float32 if tensor.dtype in (torch.float16, torch.bfloat16) else None


def _changed(before: Tensor, after: Tensor) -> Tensor:
    return ((before != after) & ~(before.isnan() & after.isnan())).sum()


def _total(counts: Iterable[Tensor]) -> Tensor:
    counts = list(counts)
    return torch.stack([count.to(counts[0].device) for count in counts]).sum() if counts else torch.zeros(())


def _fetched(figures: Mapping[tuple[str, str], Tensor]) -> dict[tuple[str, str], float]:
    """As numbers, with one transfer for each device."""
    if not figures:
        return {}
    by_device: dict[torch.device, list[tuple[str, str]]] = {}
    for key, figure in figures.items():
        by_device.setdefault(figure.device, []).append(key)
    result: dict[tuple[str, str], float] = {}
    for keys in by_device.values():
        values = torch.stack([figures[key].float() for key in keys]).tolist()
        result |= dict(zip(keys, values, strict=True))
    return result
