"""A Lightning precision plug-in that does what the configuration says, for each mode of :mod:`sem.precision`."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any

import torch
from lightning.pytorch.plugins.precision import MixedPrecision
from torch import Tensor, nn

from sem.precision import PrecisionPolicy, use_precision


class SEMPrecisionPlugin(MixedPrecision):
    """Runs forward passes in the precision named, stage by stage where the model has stages, and backward passes
    outside autocast.

    Nothing is switched on because the hardware could do it. Parameters stay float32 in every mode, and there is no
    loss scaling, which bfloat16 does not need.

    Args:
        precision: ``"32-true"``, ``"bf16-mixed"`` or ``"selective-bf16"``.
        device: kind of device the training runs on.

    Raises:
        ValueError: there is no such precision; at the start of training, the device cannot carry it out or the model
            has no stages to tell apart.

    Example:
        >>> from lightning.pytorch import Trainer
        >>> plugin = SEMPrecisionPlugin("selective-bf16", device="cpu")
        >>> Trainer(accelerator="cpu", plugins=[plugin], logger=False, enable_checkpointing=False).precision
        'selective-bf16'
    """

    def __init__(self, precision: str = "bf16-mixed", device: str = "cuda") -> None:
        self.policy = PrecisionPolicy(precision, torch.device(device).type)
        super().__init__("bf16-mixed", self.policy.device_type)
        self.precision: str = precision  # type: ignore[assignment]  # the base class knows two modes only

    def convert_module(self, module: nn.Module) -> nn.Module:
        """Set the stages of ``module`` free or pin them; called before the module goes to its device."""
        PrecisionPolicy.for_device(self.precision, self.device)
        use_precision(module, self.policy)
        return module

    def autocast_context_manager(self) -> AbstractContextManager[Any]:  # type: ignore[override]
        """What every step runs in."""
        return self.policy.forward_context()

    def backward(self, tensor: Tensor, *args: Any, **kwargs: Any) -> None:  # type: ignore[override]
        """Differentiate ``tensor`` outside autocast: under manual optimization Lightning would do it inside."""
        with torch.autocast(self.device, enabled=False):
            super().backward(tensor, *args, **kwargs)
