"""Figures of a model on held-out batches."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn

from sem.training.distributed import ALONE, OneProcess
from sem.training.step import Objective, accumulate, to_floats


def evaluate(
    model: nn.Module,
    objective: Objective,
    batches: Iterable[Any],
    *,
    autocast: Callable[[], AbstractContextManager[Any]] = nullcontext,
    ranks: OneProcess = ALONE,
) -> dict[str, float]:
    """The objective's report over ``batches``, in evaluation mode and without gradients.

    Means are averaged over the batches, sums added, as in a training step. The model's mode is put back. Several
    processes take turns with the batches, so that none waits long for another, and all get the figures of all batches.

    Raises:
        ValueError: there is no batch.
    """
    totals: dict[str, Tensor | float] = {}
    count = 0
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad():
            for batch in islice(batches, ranks.rank, None, ranks.world_size):
                with autocast():
                    accumulate(totals, objective(model, batch, None), 1.0)
                count += 1
    finally:
        model.train(was_training)
    figures: dict[str, Tensor | float] = {}
    shares = ranks.gather((to_floats(totals), count))
    for share, _ in shares:
        accumulate(figures, share, 1.0)
    total_count = sum(count for _, count in shares)
    if not total_count:
        raise ValueError("batches: expected at least one batch to evaluate on, got none")
    return objective.report(
        {name: float(value) if name.endswith("_sum") else float(value) / total_count for name, value in figures.items()}
    )
