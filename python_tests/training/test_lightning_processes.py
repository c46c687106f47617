"""Two gloo processes that Lightning starts, against one."""

import os
import subprocess
import sys
import time

import pytest
import torch
from lightning.pytorch.strategies import DDPStrategy, SingleDeviceStrategy
from lightning_ranks import main
from processes import SUPPORT, modules_path
from toy import toy_config

from sem.training.lightning.engine import build_trainer
from sem.training.lightning.xpu import XPUAccelerator
from sem.training.logging import read_csv

TOLERANCE = 1e-6


def run(folder, *arguments):
    """Exit status and output of the script, and what each process saved."""
    path = modules_path()
    done = subprocess.run(
        [sys.executable, str(SUPPORT / "lightning_ranks.py"), str(folder), *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=300,
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": path},
    )
    saved = {path.stem: torch.load(path, weights_only=False) for path in sorted(folder.glob("rank*.pt"))}
    return done.returncode, done.stdout, saved


def test_two_processes_train_as_one_does_until_one_of_them_is_told_to_stop(tmp_path):
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    main(tmp_path / "one", "1", "0", "SIGTERM")
    expected = torch.load(tmp_path / "one" / "rank0.pt", weights_only=False)
    largest = max(float(gradient.abs().max()) for gradient in expected["gradients"].values())
    status, output, both = run(tmp_path / "two", "2", "1", "SIGTERM")
    assert (status, output) == (0, "")
    assert both.keys() == {"rank0", "rank1"}
    for found in both.values():
        assert found["losses"][:3] == pytest.approx(expected["losses"][:3], abs=TOLERANCE)
        # AdamW's first steps divide each gradient by its own size: the rounding of small ones grows step by step
        assert found["losses"][:5] == pytest.approx(expected["losses"][:5], abs=5e-5)
        for name, gradient in found["gradients"].items():
            reference = expected["gradients"][name]
            torch.testing.assert_close(gradient, reference, rtol=0, atol=TOLERANCE * largest, msg=name)
    ((step, signal_name, shown),) = {(found["step"], found["signal"], len(found["losses"])) for found in both.values()}
    assert step == shown and 5 <= step <= 6 and signal_name == "SIGTERM"
    folder = tmp_path / "two" / "run"
    assert (folder / "checkpoints" / f"step_{step:08d}.pt").exists()
    assert [row["step"] for row in read_csv(folder / "metrics.csv")] == list(range(1, step + 1))
    assert len(list((folder / "tensorboard").iterdir())) == 1


@pytest.mark.parametrize("victim", ["0", "1"])
def test_a_killed_process_ends_the_other_with_a_clear_error(tmp_path, victim):
    begin = time.monotonic()
    status, output, saved = run(tmp_path, "2", victim, "SIGKILL")
    assert time.monotonic() - begin < 120
    assert status != 0 and saved == {}
    survivor = 1 - int(victim)
    assert f"ProcessLost: rank {survivor} of 2 lost another process" in output
    assert (tmp_path / "run" / "checkpoints" / "step_00000003.pt").exists()


def test_strategy_and_devices_follow_the_configuration(tmp_path, monkeypatch):
    def trainer(device, *overrides):
        return build_trainer(toy_config(tmp_path, *overrides), torch.device(device), [])

    assert isinstance(trainer("cpu").strategy, SingleDeviceStrategy)
    several = trainer("cpu", "training.devices=2", "training.num_nodes=2", "training.distributed_timeout=9")
    assert isinstance(several.strategy, DDPStrategy) and several.world_size == 4
    assert (several.strategy.process_group_backend, several.strategy._timeout.seconds) == ("gloo", 9)
    assert isinstance(trainer("cpu", "training.strategy=ddp").strategy, DDPStrategy)
    monkeypatch.setattr(torch.xpu, "is_available", lambda: True)
    single = trainer("xpu:1").strategy
    assert isinstance(single.accelerator, XPUAccelerator) and single.root_device == torch.device("xpu", 1)
    pair = trainer("xpu", "training.devices=2").strategy
    assert pair.process_group_backend == "cpu:gloo,xpu:xccl"
    assert pair.parallel_devices == [torch.device("xpu", 0), torch.device("xpu", 1)]
    with pytest.raises(ValueError, match=r"training.device = 'xpu:1': expected 'xpu' for 2 processes"):
        trainer("xpu:1", "training.devices=2")
