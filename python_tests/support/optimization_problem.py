"""Three parameters with one minimum, and the loop that any wing would train them with."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from sem.optimization_settings import OptimizationSettings
from sem.training.clipping import build_clipping
from sem.training.loop import LoopSettings, TrainingLoop
from sem.training.optim import build_optimizer
from sem.training.schedules import build_schedule

TARGET = 0.25
PULL = {"weight": 1.0, "bias": 3.0, "slow": 0.5}
"""Curvature of the loss along each parameter."""


class ThreeParameters(nn.Module):
    """A map, a vector without weight decay, and a matrix that is no map and learns half as fast."""

    def __init__(self, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([[0.9, -0.4], [0.3, 0.7], [-0.8, 0.1]], dtype=dtype))
        self.weight._linear_map = "real"  # type: ignore[attr-defined]
        self.bias = nn.Parameter(torch.tensor([0.5, -0.6, 0.05], dtype=dtype))
        self.slow = nn.Parameter(torch.tensor([[0.2, -1.1], [0.6, -0.3]], dtype=dtype))
        self.slow._lr_scale = 0.5  # type: ignore[attr-defined]

    def forward(self, shift: float) -> Tensor:
        away = (
            pull * (p - TARGET - shift).square().sum() for p, pull in zip(self.parameters(), PULL.values(), strict=True)
        )
        return 0.5 * torch.stack(list(away)).sum()


class Distance:
    """The loss is what the model gives."""

    unit = "steps"

    def __call__(self, model: nn.Module, batch: float, diagnostics: Any) -> dict[str, Tensor]:
        return {"loss": model(batch)}

    def report(self, totals: dict[str, float]) -> dict[str, float]:
        return dict(totals)


class Shifts:
    """A place of the minimum for every step, which makes the gradients vary."""

    def __init__(self) -> None:
        self.count = 0

    def __iter__(self) -> Iterator[float]:
        while True:
            self.count += 1
            yield 0.4 * (self.count * 7 % 5 - 2)

    def state_dict(self) -> dict[str, Any]:
        return {"count": self.count}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.count = state["count"]


def validation_losses(loop: TrainingLoop) -> dict[str, float]:
    """Losses that improve, stay, and improve again, by the step."""
    return {"val_loss": (3.0, 2.0, 2.0, 2.5, 2.0, 1.5, 1.5)[loop.state.step % 7]}


def loop_of(settings: OptimizationSettings, **parts: Any) -> TrainingLoop:
    """What trains three parameters as ``settings`` say; ``parts`` replace what is handed to the loop."""
    model = ThreeParameters()
    own: dict[str, Any] = {
        "model": model,
        "objective": Distance(),
        "optimizer": build_optimizer(model, settings),
        "schedule": build_schedule(settings),
        "batches": Shifts(),
        "settings": LoopSettings(clipping=build_clipping(settings), log_every=1, eval_every=2, checkpoint_every=3),
        "validate": lambda: validation_losses(loop),
    }
    loop = TrainingLoop(**(own | parts))
    return loop
