"""Shots on the workers of a Dask scheduler, of which one is killed while it works: the other does its shot again."""

import importlib
import os
import signal
import subprocess
import sys
import time

import distributed
import pytest
from refinement_problems import write_shots

from sem.diffraction.refinement import RefinementSettings, refine_shots, tasks_from
from sem.diffraction.refinement import workers as workers_module

SETTINGS = RefinementSettings(("crystal.misset",), stages=())


def start_worker(address):
    command = ["-m", "distributed.cli.dask_worker", address, "--no-nanny", "--nthreads", "1", "--no-dashboard"]
    return subprocess.Popen([sys.executable, *command], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def test_a_killed_workers_shot_is_done_by_the_other(tmp_path):
    tasks = tasks_from(*write_shots(tmp_path, 8))
    lost: list[str] = []
    by: dict[str, int] = {}
    with (
        distributed.LocalCluster(n_workers=0, dashboard_address="127.0.0.1:0", silence_logs=50) as cluster,
        distributed.Client(cluster, set_as_default=False) as client,
    ):
        workers = [start_worker(cluster.scheduler_address) for _ in range(2)]
        try:
            client.wait_for_workers(2, timeout=60)
            client.run(importlib.import_module, refine_shots.__module__)  # so that neither has a head start
            address_of = {process: address for address, process in client.run(os.getpid).items()}

            def tell(result, done, total):
                by[result.name] = result.process
                if not lost:
                    (other,) = set(address_of) - {result.process}
                    os.kill(other, signal.SIGSTOP)
                    time.sleep(0.2)  # what it had sent has arrived
                    lost.extend(client.processing()[address_of[other]])
                    os.kill(other, signal.SIGKILL)

            summary = refine_shots(tasks, SETTINGS, tmp_path / "out", scheduler=cluster.scheduler_address, tell=tell)
        finally:
            for worker in workers:
                worker.kill()
                worker.wait()
    assert lost and summary.count("converged") == 8 and not summary.left
    survivor = next(iter(by.values()))  # whose shot was the first
    redone = [name for name in by if any(str(key).endswith(f"-{name}") for key in lost)]
    assert redone and all(by[name] == survivor for name in redone)


def test_a_scheduler_that_does_not_answer_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(workers_module, "_ANSWER", "0.3s")
    tasks = tasks_from(*write_shots(tmp_path, 1))
    with pytest.raises(OSError, match="tcp://127.0.0.1:1"):
        refine_shots(tasks, SETTINGS, tmp_path / "out", scheduler="tcp://127.0.0.1:1")
