"""The language model's objective: likelihood of the next token, reported in bits per byte."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor


class LanguageModelObjective:
    """Calls ``model(tokens, targets, diagnostics=...)`` on a batch of :mod:`sem.data`.

    Bits per byte are the nats of *all* targets, document boundaries included, over the bytes of text among
    them, so they do not depend on the tokenizer.

    Args:
        device: where the batches go.
        compile: run the model through ``torch.compile``, except where it is measured.
    """

    unit = "tokens"

    def __init__(self, device: torch.device | str = "cpu", *, compile: bool = False) -> None:
        self.device = torch.device(device)
        self.compile = compile
        self._compiled: dict[Any, Callable[..., dict[str, Tensor]]] = {}

    def __call__(self, model: Any, batch: Mapping[str, Any], diagnostics: Any) -> dict[str, Any]:
        tokens = batch["tokens"].to(self.device, non_blocking=True)
        targets = batch["targets"].to(self.device, non_blocking=True)
        forward = self._forward(model) if diagnostics is None else model
        return {
            **forward(tokens, targets, diagnostics=diagnostics, **self.beside(model, tokens)),
            "bytes_sum": batch["bytes"],
            "items_sum": int((batch["targets"] >= 0).sum()),
        }

    def beside(self, model: Any, tokens: Tensor) -> dict[str, Any]:
        """What else ``model`` is called with on ``tokens``; a subclass may have something to give."""
        return {}

    def report(self, totals: Mapping[str, float]) -> dict[str, float]:
        """``loss``, ``nll`` (nats per token), ``bits_per_byte`` and the model's other means."""
        figures = {name: value for name, value in totals.items() if not name.endswith("_sum")}
        figures["nll"] = totals["nll_sum"] / max(totals["items_sum"], 1.0)
        figures["bits_per_byte"] = totals["nll_sum"] / math.log(2.0) / max(totals["bytes_sum"], 1.0)
        return figures

    def _forward(self, model: Any) -> Callable[..., dict[str, Tensor]]:
        if not self.compile:
            return model
        if model not in self._compiled:
            self._compiled[model] = torch.compile(model)
        return self._compiled[model]
