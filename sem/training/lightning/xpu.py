"""Intel's GPUs for Lightning, which has no accelerator of its own for them."""

from __future__ import annotations

from typing import Any

import torch
from lightning.pytorch.accelerators import Accelerator


class XPUAccelerator(Accelerator):
    """torch's ``xpu`` devices; hand it to the strategy, ``SingleDeviceStrategy(device, XPUAccelerator())``."""

    def setup_device(self, device: torch.device) -> None:
        torch.xpu.set_device(device)

    def teardown(self) -> None:
        torch.xpu.empty_cache()

    def get_device_stats(self, device: Any) -> dict[str, Any]:
        return torch.xpu.memory_stats(device)

    @staticmethod
    def parse_devices(devices: Any) -> list[int]:
        """``devices`` as device numbers; a count is the first so many."""
        return list(range(devices)) if isinstance(devices, int) else [int(number) for number in devices]

    @staticmethod
    def get_parallel_devices(devices: Any) -> list[torch.device]:
        return [torch.device("xpu", number) for number in devices]

    @staticmethod
    def auto_device_count() -> int:
        return torch.xpu.device_count()

    @staticmethod
    def is_available() -> bool:
        return torch.xpu.is_available()

    @staticmethod
    def name() -> str:
        return "xpu"
