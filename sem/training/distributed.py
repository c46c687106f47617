"""The processes that train one model together, started by torchrun, one per device.

Each holds the whole model and trains it on its own rows. torch's ``DistributedDataParallel`` averages the gradients;
what else the processes have to know of each other (figures, the clock, a signal, generator states) goes through
:class:`ProcessGroup`, on the CPU and in double precision, so that all decide alike at every step. A run of one process
uses :class:`OneProcess`, which never touches ``torch.distributed``.
"""

from __future__ import annotations

import atexit
import contextlib
import gc
import importlib
import os
import re
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from datetime import timedelta
from typing import Any, TypeVar

import torch
from torch import Tensor, distributed, nn

from sem.run_settings import RunSettings
from sem.training.step import to_floats

Value = TypeVar("Value")

BACKENDS = {"cpu": "gloo", "cuda": "cpu:gloo,cuda:nccl", "xpu": "cpu:gloo,xpu:xccl"}
"""torch's names of what carries gradients, and beside it decisions, which are made on the CPU."""

_POLL_SECONDS = 0.0005
_GRACE_SECONDS = 30.0
_COMMUNICATION = re.compile(r"gloo|nccl|xccl|c10d|tcpstore|pair closure|connection (closed|reset|refused)", re.I)


class ProcessLost(RuntimeError):
    """Another process of the run has ended or does not answer."""


class OneProcess:
    """A run's only process: nothing to agree on, nobody to wait for."""

    rank = 0
    world_size = 1

    @property
    def is_first(self) -> bool:
        """Whether this is the process that writes and shows."""
        return self.rank == 0

    def wrap(self, model: nn.Module) -> nn.Module:
        """``model`` such that a backward pass leaves the gradient of all processes' rows."""
        return model

    def accumulating(self, wrapped: nn.Module) -> AbstractContextManager[Any]:
        """The context of forward and backward passes after which gradients need not be joined yet."""
        return nullcontext()

    def fetch(self, figures: Mapping[str, Tensor | float]) -> dict[str, float]:
        """Figures as floats, over all processes: names ending in ``_sum`` are added, others averaged."""
        return to_floats(figures)

    def gather(self, value: Value) -> list[Value]:
        """The ``value`` of every process, in the order of the ranks."""
        return [value]

    def first(self, action: Callable[[], object]) -> None:
        """Let the first process do something while the others wait; what it raises, all raise."""
        action()

    def guard(self) -> AbstractContextManager[Any]:
        """Where a failure to communicate becomes :class:`ProcessLost`."""
        return nullcontext()


ALONE = OneProcess()


class ProcessGroup(OneProcess):
    """This process among the others of torchrun's world; made by :func:`join`.

    Args:
        device: this process's own.
        timeout: seconds after which a silent process counts as lost.
    """

    def __init__(self, device: torch.device, timeout: float) -> None:
        self.device = device
        self.timeout = timeout
        self._heard = time.monotonic()
        if distributed.is_initialized():
            self.rank, self.world_size = distributed.get_rank(), distributed.get_world_size()
        else:
            self.rank, self.world_size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
            # nccl's own watchdog aborts the process without a word to the user: let fetch() notice first
            patience = timeout if device.type == "cpu" else timeout + _GRACE_SECONDS
            leave_at_exit()
            with self.guard():
                distributed.init_process_group(BACKENDS[device.type], timeout=timedelta(seconds=patience))

    def wrap(self, model: nn.Module) -> nn.Module:
        """As :meth:`OneProcess.wrap`: under ``DistributedDataParallel``, which joins the gradients during the backward
        pass."""
        with self.guard():
            return nn.parallel.DistributedDataParallel(model, gradient_as_bucket_view=True)

    def accumulating(self, wrapped: nn.Module) -> AbstractContextManager[Any]:
        assert isinstance(wrapped, nn.parallel.DistributedDataParallel)
        return wrapped.no_sync()

    def fetch(self, figures: Mapping[str, Tensor | float]) -> dict[str, float]:
        """As :meth:`OneProcess.fetch`; waits for the device and for all processes.

        Raises:
            ProcessLost: one of them does not answer within ``timeout``.
        """
        with self.guard():
            self._await_device()
            own = to_floats(figures)
            totals = torch.tensor(list(own.values()), dtype=torch.float64)
            distributed.all_reduce(totals)
            self._heard = time.monotonic()
        pairs = zip(own, totals.tolist(), strict=True)
        return {name: value if name.endswith("_sum") else value / self.world_size for name, value in pairs}

    def gather(self, value: Value) -> list[Value]:
        values: list[Any] = [None] * self.world_size
        with self.guard():
            distributed.all_gather_object(values, value)
            self._heard = time.monotonic()
        return values

    def first(self, action: Callable[[], object]) -> None:
        problem: Exception | None = None
        if self.is_first:
            try:
                action()
            except Exception as error:
                problem = error
        if (problem := self.gather(problem)[0]) is not None:
            raise problem

    @contextlib.contextmanager
    def guard(self) -> Iterator[None]:
        try:
            yield
        except RuntimeError as error:
            if not _is_of_communication(error):
                raise
            raise self._lost(_first_words(error)) from error

    def _await_device(self) -> None:
        """Wait for the device, which may be waiting for another process's device, no longer than ``timeout``."""
        if self.device.type == "cpu":
            return
        done = torch.Event(self.device)
        done.record()
        begin = time.monotonic()
        while not done.query():
            if time.monotonic() - begin > self.timeout:
                raise self._lost(f"{self.device} still waits for the other processes' gradients")
            time.sleep(_POLL_SECONDS)

    def _lost(self, reason: str) -> ProcessLost:
        atexit.unregister(_leave)  # parting would wait for the one that is lost
        if "TORCHELASTIC_RUN_ID" in os.environ and threading.current_thread() is threading.main_thread():
            # torchrun ends the processes that are left, which this one does by itself, but says why first
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
        silent = time.monotonic() - self._heard
        return ProcessLost(
            f"rank {self.rank} of {self.world_size} lost another process or never met it: no word for {silent:.1f} s "
            f"(training.distributed_timeout = {self.timeout:g}). The process that failed first says why in its own "
            f"output; --resume continues from the last checkpoint [{reason}]"
        )


def leave_at_exit() -> None:
    """Part from the other processes before the interpreter ends, which gloo's running threads would abort.

    To be called before the processes are connected.
    """
    # DistributedDataParallel imports it, and its functions' default arguments keep the group that is there by then
    importlib.import_module("torch.distributed.nn.functional")
    atexit.unregister(_leave)
    atexit.register(_leave)


def _leave() -> None:
    if distributed.is_initialized():
        gc.collect()  # a trainer and its wrapped model stand in cycles, and gloo's threads end with the last reference
        distributed.destroy_process_group()


def join(training: RunSettings, device: torch.device) -> OneProcess:
    """This process's place in the run: torchrun's, or alone where torchrun has started nothing.

    Args:
        device: this process's own, see :func:`own_device`.

    Raises:
        ProcessLost: the other processes did not appear within ``training.distributed_timeout``.
    """
    return ProcessGroup(device, training.distributed_timeout) if launched() else ALONE


def launched() -> bool:
    """Whether torchrun, or whatever sets the same variables, has started this process."""
    return "RANK" in os.environ and "WORLD_SIZE" in os.environ


def check_layout(training: RunSettings) -> int:
    """How many processes train together; refuses what they cannot be, before anything is allocated or waited for.

    Raises:
        ValueError: several devices without torchrun.
    """
    wanted = training.devices * training.num_nodes
    if training.engine == "loop" and wanted > 1 and not launched():
        nodes = f"--nnodes {training.num_nodes} " if training.num_nodes > 1 else ""
        raise ValueError(
            f"training.devices = {training.devices}, training.num_nodes = {training.num_nodes}: expected torchrun to "
            f"start the {wanted} processes: torchrun {nodes}--nproc-per-node {training.devices} -m sem train ..., "
            "or --engine lightning, which starts them itself"
        )
    return int(os.environ["WORLD_SIZE"]) if launched() else 1


def accumulation(training: RunSettings, world_size: int) -> int:
    """How many micro-batches each of ``world_size`` processes takes per step.

    Raises:
        ValueError: ``training.batch_size`` cannot be shared out evenly.
    """
    rows = training.micro_batch_size * world_size
    if training.batch_size % rows:
        raise ValueError(
            f"training.batch_size = {training.batch_size}: expected a multiple of {rows}, training.micro_batch_size = "
            f"{training.micro_batch_size} on each of {world_size} processes"
        )
    return training.batch_size // rows


def own_device(device: torch.device) -> torch.device:
    """The device of this process, of the kind that all use: the one with the number LOCAL_RANK.

    Raises:
        ValueError: one device is named for several processes, or there are more processes than devices.
    """
    if not launched() or device.type == "cpu":
        return device
    local_rank = int(os.environ["LOCAL_RANK"])
    processes = int(os.environ.get("LOCAL_WORLD_SIZE", os.environ["WORLD_SIZE"]))
    if device.index is not None and processes > 1:
        raise ValueError(
            f"training.device = {str(device)!r}: expected {device.type!r} for {processes} processes, one device each"
        )
    backend = getattr(torch, device.type)
    index = local_rank if device.index is None else device.index
    if index >= backend.device_count():
        raise ValueError(
            f"torchrun --nproc-per-node {processes}: expected at most {backend.device_count()}, the number of "
            f"{device.type} devices of this machine"
        )
    backend.set_device(index)
    return torch.device(device.type, index)


def merge_states(states: list[dict[str, Any]]) -> dict[str, Any]:
    """One state of all ranks' states: mappings are joined key by key, for other entries the first rank's holds.

    Example:
        >>> merge_states([{"row": 8, "ranks": {"0": 5}}, {"row": 8, "ranks": {"1": 6}}])
        {'row': 8, 'ranks': {'0': 5, '1': 6}}
    """
    merged: dict[str, Any] = {}
    for state in states:
        for name, value in state.items():
            if isinstance(value, dict):
                merged[name] = merge_states([merged.get(name, {}), value])
            else:
                merged.setdefault(name, value)
    return merged


def _is_of_communication(error: RuntimeError) -> bool:
    # gloo raises plain RuntimeErrors
    plain = type(error) is RuntimeError and _COMMUNICATION.search(str(error)) is not None
    return plain or isinstance(error, distributed.DistError)


def _first_words(error: RuntimeError) -> str:
    """torch's message without the place in its source and the advice that follows."""
    line = str(error).strip().splitlines()[0].partition(" This is typically caused")[0]
    return re.sub(r"^\[\S+\] ", "", line)
