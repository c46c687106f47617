"""Figures of a model on held-out batches."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from sem.training.step import Objective, accumulate, to_floats


def evaluate(
    model: nn.Module,
    objective: Objective,
    batches: Iterable[Any],
    *,
    autocast: Callable[[], AbstractContextManager[Any]] = nullcontext,
) -> dict[str, float]:
    """The objective's report over ``batches``, in evaluation mode and without gradients.

    Means are averaged over the batches, sums added, as in a training step. The model's mode is put back.

    Raises:
        ValueError: there is no batch.
    """
    totals: dict[str, Tensor | float] = {}
    count = 0
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad():
            for batch in batches:
                with autocast():
                    accumulate(totals, objective(model, batch, None), 1.0)
                count += 1
    finally:
        model.train(was_training)
    if not count:
        raise ValueError("batches: expected at least one batch to evaluate on, got none")
    figures = to_floats(totals)
    return objective.report(
        {name: value if name.endswith("_sum") else value / count for name, value in figures.items()}
    )
