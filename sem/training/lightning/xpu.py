"""Intel's GPUs for Lightning, which has no accelerator of its own for them."""

from __future__ import annotations

from typing import Any

import torch
from lightning.pytorch.accelerators import Accelerator


class XPUAccelerator(Accelerator):
    """torch's ``xpu`` devices; hand it to the strategy, ``SingleDeviceStrategy(device, XPUAccelerator())``."""

    def setup_device(self, device: torch.device) -> None:
        """Make ``device`` the one that torch takes by default."""
        torch.xpu.set_device(device)

    def teardown(self) -> None:
        """Give back the memory that torch keeps for later tensors."""
        torch.xpu.empty_cache()

    def get_device_stats(self, device: Any) -> dict[str, Any]:
        """torch's figures of the memory of ``device``."""
        return torch.xpu.memory_stats(device)

    @staticmethod
    def parse_devices(devices: Any) -> list[int]:
        """``devices`` as device numbers; a count is the first so many."""
        return list(range(devices)) if isinstance(devices, int) else [int(number) for number in devices]

    @staticmethod
    def get_parallel_devices(devices: Any) -> list[torch.device]:
        """The device of each number in ``devices``."""
        return [torch.device("xpu", number) for number in devices]

    @staticmethod
    def auto_device_count() -> int:
        """How many devices ``devices="auto"`` takes: all that torch sees."""
        return torch.xpu.device_count()

    @staticmethod
    def is_available() -> bool:
        """Whether torch can compute on such a device here."""
        return torch.xpu.is_available()

    @staticmethod
    def name() -> str:
        """What a Trainer calls it."""
        return "xpu"
