"""The device of a run, and what a model on it needs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from sem.ipex import first_line, load_ipex

MOST_THREADS = 4096


def resolve_device(name: str) -> torch.device:
    """``training.device`` as a device; ``auto`` is CUDA, then XPU, then the CPU.

    Raises:
        ValueError: the device is not on this machine.
    """
    usable = {"cpu": True, "cuda": torch.cuda.is_available(), "xpu": torch.xpu.is_available()}
    if name == "auto":
        return torch.device(next(kind for kind in ("cuda", "xpu", "cpu") if usable[kind]))
    device = torch.device(name)
    if not usable.get(device.type, False):
        there = ", ".join(kind for kind, works in usable.items() if works)
        raise ValueError(f"training.device = {name!r}: expected a device of this machine and torch ({there})")
    return device


def prepare_for_device(model: nn.Module, optimizer: torch.optim.Optimizer | None, device: torch.device) -> str | None:
    """Let Intel's extension (IPEX) optimize a model on an XPU device, in float32 and in place, where it can.

    Parameters, their order and both state dicts stay what they were. Other devices are left alone, without
    importing the extension.

    Args:
        model: on ``device``, before it is wrapped for several processes.
        optimizer: of the model's parameters; None for a model in evaluation mode.

    Returns:
        One line that says what an XPU device runs with, and why; None for other devices.

    Raises:
        ValueError: a model in training mode without an optimizer, or the reverse.

    Example:
        >>> prepare_for_device(nn.Linear(2, 2).eval(), None, torch.device("cpu")) is None
        True
    """
    if model.training == (optimizer is None):
        mode, given = ("training", "none") if model.training else ("evaluation", "one")
        raise ValueError(
            f"optimizer: expected one with a model in training mode and only then, got {given} in {mode} mode"
        )
    if device.type != "xpu":
        return None
    try:
        ipex = load_ipex()
        # Only what leaves every parameter where it is: checkpoints, DistributedDataParallel and the optimizer hold the
        # parameters themselves. Prepacking keeps weights in a layout of oneDNN, folding and IPEX's own dropout and LSTM
        # replace modules, and its update step would replace torch's, which is one fused kernel too.
        ipex.optimize(
            model,
            dtype=torch.float32,
            optimizer=optimizer,
            inplace=True,
            weights_prepack=False,
            conv_bn_folding=False,
            linear_bn_folding=False,
            replace_dropout_with_identity=False,
            optimize_lstm=False,
            fuse_update_step=False,
        )
    except ImportError as error:
        return f"torch's own XPU path; {error}"
    except Exception as error:
        return f"torch's own XPU path; IPEX could not optimize the model ({first_line(error)})"
    return f"IPEX {ipex.__version__} in float32"


def use_threads(count: int) -> None:
    """Have torch compute on ``count`` CPU threads, as a command's ``--threads`` asks for.

    Raises:
        ValueError: fewer than 1, or more than any machine has use for.
    """
    if not 1 <= count <= MOST_THREADS:
        raise ValueError(f"--threads {count}: expected an integer >= 1 and <= {MOST_THREADS}")
    torch.set_num_threads(count)


@contextmanager
def threads(count: int) -> Iterator[None]:
    """Torch on ``count`` CPU threads inside the block."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
