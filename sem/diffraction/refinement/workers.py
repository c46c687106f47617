"""Where shots are refined: in this process, or in the processes of a Dask cluster, here or elsewhere."""

from __future__ import annotations

import contextlib
import logging
import queue
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch

from sem.diffraction.refinement.fit import Stopped
from sem.diffraction.refinement.settings import RefinementSettings
from sem.diffraction.refinement.shots import FAILED, Result, Task, refine_task
from sem.extras import how_to_install

_DEAF = "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)"
"""What workers of this machine begin with: Ctrl-C in a terminal reaches them too, and is not theirs to act on."""
_PATIENCE = 0.2  # seconds between two looks at whether to stop
_ANSWER = "30s"  # in which a scheduler answers


def refine_here(
    tasks: Sequence[Task], settings: RefinementSettings, *, pictures: bool, stopped: Callable[[], bool]
) -> Iterator[Result]:
    """The results of ``tasks``, one after the other; ends early once ``stopped`` says True."""
    for task in tasks:
        if stopped():
            return
        try:
            yield refine_task(task, settings, pictures=pictures, stopped=stopped)
        except Stopped:
            return


def refine_with_dask(
    tasks: Sequence[Task],
    settings: RefinementSettings,
    *,
    workers: int,
    scheduler: str | None,
    pictures: bool,
    stopped: Callable[[], bool],
) -> Iterator[Result]:
    """The results of ``tasks`` in the order in which they are done, by the workers of a Dask cluster, a thread each.

    A shot whose worker dies is done again by another; one that four have died of is reported as failed. The cluster is
    that of ``scheduler`` (an address, whose workers see the files under the same paths), or one of ``workers``
    processes on this machine, which ends with the shots. Ends early once ``stopped`` says True.

    Raises:
        ImportError: dask.distributed is not there, or a library that a worker needs.
        OSError: no scheduler answers.
    """
    try:
        import dask
        import distributed
        from distributed.scheduler import KilledWorker
    except ImportError:
        raise ImportError(f"several workers need dask.distributed: {how_to_install('crystallography')}") from None
    with contextlib.ExitStack() as stack:
        if scheduler is None:
            # any free port for the dashboard; no limit of memory, a shot needs little; no profiler, which costs time
            stack.enter_context(dask.config.set({"distributed.worker.profile.enabled": False}))
            cluster = distributed.LocalCluster(
                n_workers=workers,
                threads_per_worker=1,
                dashboard_address="127.0.0.1:0",
                memory_limit=None,
                silence_logs=logging.CRITICAL,
                preload=[_DEAF],
            )
            stack.enter_context(cluster)
            client = stack.enter_context(distributed.Client(cluster, set_as_default=False))
        else:
            client = stack.enter_context(distributed.Client(scheduler, timeout=_ANSWER, set_as_default=False))
        waiting = {
            client.submit(_refine_alone, task, settings, pictures, pure=False, key=f"shot-{number}-{task.name}"): task
            for number, task in enumerate(tasks)
        }
        done: queue.SimpleQueue[distributed.Future] = queue.SimpleQueue()
        for future in waiting:
            future.add_done_callback(done.put)
        while waiting and not stopped():
            try:
                future = done.get(timeout=_PATIENCE)
            except queue.Empty:
                continue
            task = waiting.pop(future)
            try:
                yield future.result()
            except KilledWorker:
                yield Result(task.name, FAILED, "every worker that took it died")
            except ImportError:  # what no other shot would do without either
                raise
            except Exception as error:
                yield Result(task.name, FAILED, f"{type(error).__name__}: {error}")
        if waiting:
            client.cancel(list(waiting), force=True)


def _refine_alone(task: Task, settings: RefinementSettings, pictures: bool) -> Any:
    torch.set_num_threads(1)
    return refine_task(task, settings, pictures=pictures)
