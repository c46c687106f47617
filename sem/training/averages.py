"""Exponential averages of a model's parameters over its training, whatever the model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from sem.training.checkpoint import load_parameters

PREFIX = "ema_"
"""What the name of a figure of averaged parameters begins with."""
ENTRY = "averages"
"""The entry of a checkpoint that holds them."""


class Averages:
    """The mean of the parameters after every step, where a step counts ``decay`` times the one behind it.

    After step t, ``a_t = decay a_(t-1) + (1 - decay) theta_t``, beginning with ``a_1 = theta_1``
    (:class:`torch.optim.swa_utils.AveragedModel`). Buffers are those of the model.

    Args:
        model: what is trained, on its device.
        decay: above 0, below 1.

    Example:
        >>> model = nn.Linear(1, 1, bias=False)
        >>> averages = Averages(model, 0.75)
        >>> for value in (1.0, 5.0):
        ...     _ = nn.init.constant_(model.weight, value)
        ...     averages.update()
        >>> with averages.applied():
        ...     model.weight.item()
        2.0
        >>> model.weight.item()
        5.0
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.model = model
        self._averaged = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(decay))

    def update(self) -> None:
        """Take the parameters of the moment into the averages."""
        self._averaged.update_parameters(self.model)

    @property
    def updates(self) -> int:
        """How many steps the averages are of."""
        return int(self._averaged.n_averaged)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Within, the model has the averages for its parameters; afterwards its own again, bit for bit."""
        pairs = list(zip(self.model.parameters(), self._averaged.module.parameters(), strict=True))
        own = [parameter.detach().clone() for parameter, _ in pairs]
        with torch.no_grad():
            for parameter, average in pairs:
                parameter.copy_(average)
        try:
            yield
        finally:
            with torch.no_grad():
                for (parameter, _), value in zip(pairs, own, strict=True):
                    parameter.copy_(value)

    def state_dict(self) -> dict[str, Any]:
        """The averages by the parameters' names, buffers beside them, and the number of steps."""
        return {"model": self._averaged.module.state_dict(), "updates": self.updates}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from what :meth:`state_dict` returned.

        Raises:
            ValueError: it is another model's.
        """
        load_parameters(self._averaged.module, state)
        self._averaged.n_averaged.fill_(int(state["updates"]))


def averaged_parameters(content: Mapping[str, Any]) -> dict[str, Any]:
    """The averages in a checkpoint's content, as :func:`~sem.training.checkpoint.load_parameters` takes them.

    Raises:
        ValueError: there are none.
    """
    found = content.get(ENTRY)
    if not isinstance(found, Mapping) or not found.get("updates"):
        raise ValueError("checkpoint: expected averaged parameters, it holds none (training.ema_decay = 0)")
    return {"model": found.get("model")}
