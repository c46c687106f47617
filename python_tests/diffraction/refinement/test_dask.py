"""Shots on the workers of a Dask scheduler, of which one is killed while it works: the other does its shot again."""

import os
import signal
import subprocess
import sys

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
    tasks = tasks_from(*write_shots(tmp_path, 14))
    with distributed.LocalCluster(n_workers=0, dashboard_address="127.0.0.1:0", silence_logs=50) as cluster:
        workers = [start_worker(cluster.scheduler_address) for _ in range(2)]
        try:
            with distributed.Client(cluster, set_as_default=False) as client:
                client.wait_for_workers(2, timeout=60)
            killed: list[int] = []
            by: list[int] = []

            def tell(result, done, total):
                by.append(result.process)
                if not killed and len(set(by)) == 2:  # both work: each has the next shot in hand
                    os.kill(result.process, signal.SIGKILL)
                    killed.append(result.process)

            summary = refine_shots(tasks, SETTINGS, tmp_path / "out", scheduler=cluster.scheduler_address, tell=tell)
        finally:
            for worker in workers:
                worker.kill()
                worker.wait()
    assert killed and {worker.pid for worker in workers} == set(by)
    after = by[by.index(killed[0]) + 1 :]
    assert len(after) > 3 and killed[0] not in after[2:]
    assert summary.count("converged") == 14 and not summary.left


def test_a_scheduler_that_does_not_answer_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(workers_module, "_ANSWER", "0.3s")
    tasks = tasks_from(*write_shots(tmp_path, 1))
    with pytest.raises(OSError, match="tcp://127.0.0.1:1"):
        refine_shots(tasks, SETTINGS, tmp_path / "out", scheduler="tcp://127.0.0.1:1")
