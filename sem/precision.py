"""Which stage of a model computes in which precision: decided by the configuration, and by nothing else.

Parameters, gradients and optimizer state are float32 in every mode. The modes differ in where
``torch.autocast`` lets matrix products run in bfloat16:

==================  ==================================================================================
``32-true``         nowhere; autocast that a caller has switched on is switched off
``bf16-mixed``      wherever autocast reaches; what is pinned to float32 pins itself and records it
``selective-bf16``  in the stages a model has set free; pinned stages are outside autocast altogether
==================  ==================================================================================

What the hardware can do is never a reason to switch anything on; what it cannot do is an error.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

MODES = ("32-true", "bf16-mixed", "selective-bf16")

_NOTHING = nullcontext()
_log = logging.getLogger(__name__)
_reached: Counter[str] = Counter()


@dataclass(frozen=True)
class PrecisionPolicy:
    """A mode on a kind of device.

    Args:
        mode: one of :data:`MODES`.
        device_type: ``cpu``, ``cuda``, ``xpu``.

    Raises:
        ValueError: there is no such mode.

    Example:
        >>> policy = PrecisionPolicy("32-true", "cpu")
        >>> with torch.autocast("cpu", torch.bfloat16), policy.forward_context():
        ...     torch.is_autocast_enabled("cpu")
        False
    """

    mode: str
    device_type: str

    def __post_init__(self) -> None:
        if self.mode not in MODES:
            raise ValueError(f"training.precision_mode = {self.mode!r}: expected one of {', '.join(MODES)}")

    @classmethod
    def for_device(cls, mode: str, device: torch.device | str) -> PrecisionPolicy:
        """The policy, if the device can carry it out; call it before anything is allocated there.

        Raises:
            ValueError: the device has no bfloat16 arithmetic and ``mode`` asks for it.
        """
        device = torch.device(device)
        policy = cls(mode, device.type)
        if mode != "32-true" and not _has_bfloat16(device):
            raise ValueError(
                f"training.precision_mode = {mode!r}: expected '32-true', since {device} has no bfloat16 arithmetic"
            )
        return policy

    def forward_context(self) -> AbstractContextManager[Any]:
        """What every forward pass runs in."""
        return self._autocast(self.mode == "bf16-mixed")

    def stage_context(self, pinned: bool) -> AbstractContextManager[Any]:
        """What a stage of the forward pass runs in, inside :meth:`forward_context`."""
        if self.mode != "selective-bf16":
            return _NOTHING
        return self._autocast(not pinned)

    def effective(self, stages: dict[str, bool]) -> dict[str, str]:
        """The precision of each stage in words; ``stages`` says which are pinned to float32.

        Example:
            >>> PrecisionPolicy("selective-bf16", "cpu").effective({"encoder": False, "propagator": True})
            {'encoder': 'bfloat16 autocast', 'propagator': 'float32'}
        """
        free = "float32" if self.mode == "32-true" else "bfloat16 autocast"
        fixed = "float32, pinned inside autocast" if self.mode == "bf16-mixed" else "float32"
        return {name: fixed if pinned else free for name, pinned in stages.items()}

    def _autocast(self, enabled: bool) -> AbstractContextManager[Any]:
        if not enabled and not torch.amp.is_autocast_available(self.device_type):
            return _NOTHING
        return torch.autocast(self.device_type, torch.bfloat16, enabled=enabled)


class StagedModule(nn.Module):
    """A module that runs in named stages, each of which a policy can set apart.

    ``stages`` maps a stage's name to whether it is pinned to float32. Until :func:`use_precision` gives it a policy,
    the module follows the caller's autocast.
    """

    stages: Mapping[str, bool] = {}
    precision: PrecisionPolicy | None = None

    def stage(self, name: str) -> AbstractContextManager[Any]:
        """The context of one stage."""
        pinned = self.stages[name]
        return _NOTHING if self.precision is None else self.precision.stage_context(pinned)


def use_precision(model: nn.Module, policy: PrecisionPolicy) -> None:
    """Make every :class:`StagedModule` in ``model`` follow ``policy``.

    Raises:
        ValueError: the policy tells stages apart, and the model has none.
    """
    staged = [module for module in model.modules() if isinstance(module, StagedModule)]
    if policy.mode == "selective-bf16" and not staged:
        raise ValueError(
            "training.precision_mode = 'selective-bf16': expected a model made of stages "
            f"(sem.precision.StagedModule), got {type(model).__name__}; use 'bf16-mixed' or '32-true'"
        )
    for module in staged:
        module.precision = policy


def effective_precision(model: nn.Module, policy: PrecisionPolicy) -> dict[str, str]:
    """The precision of each stage of ``model`` in words; of the whole, where it has no stages."""
    stages: dict[str, bool] = {}
    for module in model.modules():
        if isinstance(module, StagedModule):
            stages.update(module.stages)
    return policy.effective(stages or {type(model).__name__: False})


def product_dtype(tensor: torch.Tensor) -> torch.dtype:
    """The dtype in which autocast wants a matrix product with ``tensor`` just now; its own where autocast is off."""
    kind = tensor.device.type
    on = torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind)
    return torch.get_autocast_dtype(kind) if on else tensor.dtype


def outside_autocast(device_type: str) -> AbstractContextManager[Any]:
    """A context without autocast; where none is on it does nothing, which is quicker."""
    on = torch.amp.is_autocast_available(device_type) and torch.is_autocast_enabled(device_type)
    return torch.autocast(device_type, enabled=False) if on else _NOTHING


def note_autocast(name: str, device_type: str) -> None:
    """Record that autocast is on where ``name``, which computes in float32 regardless, was called.

    Each name is logged once per process. Compiled graphs are not counted.
    """
    if torch.compiler.is_compiling():
        return
    if not torch.amp.is_autocast_available(device_type) or not torch.is_autocast_enabled(device_type):
        return
    if not _reached[name]:
        dtype = torch.get_autocast_dtype(device_type)
        _log.warning("autocast (%s) reached %s, which computes in float32 all the same", dtype, name)
    _reached[name] += 1


def autocast_reached() -> dict[str, int]:
    """How often :func:`note_autocast` found autocast on, by name, since the process began or the last reset."""
    return {name: count for name, count in _reached.items() if count}


def reset_autocast_reached() -> None:
    """Start counting anew; the next finding of each name is logged again."""
    _reached.clear()


def _has_bfloat16(device: torch.device) -> bool:
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type == "xpu":
        return torch.xpu.is_bf16_supported()
    return device.type == "cpu"
