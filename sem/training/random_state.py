"""The state of torch's random generators, saved and restored."""

from __future__ import annotations

from typing import Any

import torch


def random_state() -> dict[str, Any]:
    """The state of torch's generators, on the CPU and on every device in use."""
    state: dict[str, Any] = {"cpu": torch.get_rng_state()}
    for name in ("cuda", "xpu"):
        backend = getattr(torch, name)
        if backend.is_available():
            state[name] = backend.get_rng_state_all()
    return state


def restore_random_state(state: dict[str, Any]) -> None:
    """Undo what was drawn since :func:`random_state`; devices that are not here any more are left out."""
    torch.set_rng_state(state["cpu"])
    for name in ("cuda", "xpu"):
        backend = getattr(torch, name)
        if name in state and backend.is_available() and backend.device_count() == len(state[name]):
            backend.set_rng_state_all(state[name])
