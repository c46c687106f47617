"""Two gloo processes against one: the same gradients, losses and decisions; and what happens when one is lost."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from processes import SUPPORT
from ranks import WAVES, first_gradients, start_ranks, steps_of, wave_trainer
from toy import toy_config, toy_trainer

from sem.training.checkpoint import CheckpointStore, load
from sem.training.distributed import ALONE, own_device
from sem.training.run_folder import saved_config

TOLERANCE = 1e-6


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """What each of two ranks returned from every scenario, and the folder they worked in."""
    folder = tmp_path_factory.mktemp("two")
    processes = start_ranks(2, str(SUPPORT / "ranks.py"), str(folder))
    try:
        outputs = [process.communicate(timeout=300)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert [process.returncode for process in processes] == [0, 0], "\n".join(outputs)
    return [torch.load(folder / f"rank{rank}.pt", weights_only=False) for rank in range(2)], folder


@pytest.fixture(scope="module")
def one(tmp_path_factory):
    """The run of the real model by one process."""
    return steps_of(wave_trainer(tmp_path_factory.mktemp("one")))


def results(two, scenario):
    return [result[scenario] for result in two[0]]


@pytest.mark.parametrize("accumulation", [1, 2])
@pytest.mark.parametrize("micro_batch", [2, 4], ids=["row by row", "at once"])
def test_gradients_are_those_of_the_joined_batch(two, tmp_path, accumulation, micro_batch):
    rows = (f"training.micro_batch_size={micro_batch}", f"training.batch_size={4 * accumulation}")
    expected = first_gradients(tmp_path, *rows)
    largest = max(float(gradient.abs().max()) for gradient in expected.values())
    assert sum(float(gradient.abs().sum()) > 0 for gradient in expected.values()) > 20
    for gradients in results(two, f"accumulation_{accumulation}"):
        assert gradients.keys() == expected.keys()
        for name, gradient in gradients.items():
            torch.testing.assert_close(gradient, expected[name], rtol=0, atol=TOLERANCE * largest, msg=name)


def test_losses_and_scores_are_those_of_one_process(two, one):
    for found in results(two, "waves"):
        assert len(found["losses"]) == 8
        assert found["losses"] == pytest.approx(one["losses"], abs=1e-5)
        for name in ("val_loss", "val_bits_per_byte", "grad_norm", "grad_norm_clipped", "bits_per_byte"):
            assert found["figures"][name] == pytest.approx(one["figures"][name], rel=1e-4), name
        shares = found["figures"]["clipped_share"], one["figures"]["clipped_share"]
        assert 0 < shares[0] < 1 and shares[0] == pytest.approx(shares[1], abs=0.01)


def test_all_processes_hold_the_same_at_the_end(two):
    for scenario in ("waves", "whole", "nan_on_the_last", "signal_to_the_last"):
        first, second = results(two, scenario)
        assert str(first["losses"]) == str(second["losses"])  # of which one is not a number
        assert first["figures"]["elapsed_seconds"] == second["figures"]["elapsed_seconds"]
        assert all(torch.equal(p, q) for p, q in zip(first["parameters"], second["parameters"], strict=True))


def test_only_the_first_process_writes(two):
    first, second = results(two, "waves")
    assert second["written"] == []
    names = {Path(name).name for name in first["written"]}
    assert {"metrics.csv", "step_00000008.pt", "checkpoints"} <= names


def test_nan_on_one_process_skips_the_step_on_all(two):
    for found in results(two, "nan_on_the_last"):
        assert found["figures"]["skipped_steps"] == 1
        assert [text for text in found["messages"] if "skipped" in text] == ["step 2: skipped, the loss is nan"]
        assert all(p.isfinite().all() for p in found["parameters"])


def test_signal_to_one_process_stops_all_at_the_same_step(two):
    for found in results(two, "signal_to_the_last"):
        assert (found["step"], found["interrupted_by"]) == (5, "SIGTERM")
    store = CheckpointStore(two[1] / "signal_to_the_last" / "checkpoints")
    assert store.paths()[-1].name == "step_00000005.pt"


def test_departure_from_health_names_its_process(two):
    expected = "step 1: rank 1: cg_residual is 0.5, expected: < 0.0001"
    assert expected in results(two, "ill_on_the_last")[0]["messages"]


def test_error_of_the_first_process_is_everyones(two):
    for message in results(two, "taken_folder"):
        assert "expected a folder without a run" in message


def test_processes_that_start_apart_refuse(two):
    for message in results(two, "different_starts"):
        assert "they continue rank 0 after step 0, rank 1 after step 1" in message


def test_resume_with_as_many_processes_repeats_the_run_bit_for_bit(two):
    for expected, found in zip(results(two, "whole"), results(two, "parts"), strict=True):
        assert found["losses"] == expected["losses"]
        assert all(torch.equal(p, q) for p, q in zip(found["parameters"], expected["parameters"], strict=True))


def test_resume_with_one_process_goes_on_in_the_same_data(two, one, tmp_path):
    saved = two[1] / "waves" / "checkpoints" / "step_00000006.pt"
    content = load(saved)
    assert len(content["random_of_other_ranks"]) == 1
    assert saved_config(content) == toy_config(two[1] / "waves", *WAVES)
    resumed = steps_of(wave_trainer(tmp_path), resume=str(saved))
    assert resumed["losses"] == pytest.approx(one["losses"][6:], abs=1e-5)


COMMAND = (
    *("-m", "sem", "train", "--model.max_seq_length", "16", "--training.batch_size", "4", "--training.device", "cpu"),
    *("--training.warmup_steps", "2", "--training.log_every", "1", "--training.eval_every", "100000"),
    *("--generation.max_new_tokens", "4", "--training.eval_batches", "1"),
    *(part for override in WAVES[:-1] for part in ("--" + override.split("=")[0], override.split("=")[1])),
)


def command(folder, *more):
    texts = folder / "texts"
    texts.mkdir()
    for number in range(40):
        (texts / f"{number}.txt").write_bytes(b"wave %d returns. " % number * 20)
    return [*COMMAND, "--data.paths", str(texts), "--training.output_dir", str(folder / "run"), *more]


def rows_logged(folder):
    log = folder / "run" / "metrics.csv"
    return log.read_text().count("\n") if log.exists() else 0


@pytest.mark.parametrize(("number", "timeout"), [(signal.SIGKILL, "60"), (signal.SIGSTOP, "3")], ids=["killed", "hung"])
def test_lost_process_ends_the_others_with_a_clear_error(tmp_path, number, timeout):
    limits = ("--training.max_steps", "1000000", "--training.distributed_timeout", timeout)
    first, second = start_ranks(2, *command(tmp_path, *limits))
    try:
        deadline = time.monotonic() + 120
        while rows_logged(tmp_path) < 5:
            assert first.poll() is None, first.communicate()[0]
            assert time.monotonic() < deadline
            time.sleep(0.05)
        second.send_signal(number)
        lost = time.monotonic()
        output = first.communicate(timeout=60)[0]
        assert time.monotonic() - lost < 30
    finally:
        for process in (first, second):
            process.kill()
            process.communicate()
    assert first.returncode == 1
    (line,) = [line for line in output.splitlines() if line.startswith("sem: ")]
    assert line.startswith("sem: rank 0 of 2 lost another process")
    assert re.search(rf"no word for \d+\.\d s \(training.distributed_timeout = {timeout}\)", line)
    assert "Traceback" not in output


@pytest.mark.skipif(sys.platform != "linux", reason="reads the threads' names from /proc")
def test_no_thread_of_gloo_outlives_the_processes_parting(two):
    """One that lets go of a tensor while the interpreter ends would abort the process."""
    for rank in range(2):
        threads = (two[1] / f"rank{rank}.threads").read_text().split("\n")
        assert threads
        assert not [name for name in threads if "gloo" in name]


def test_torchrun_starts_a_run(tmp_path):
    arguments = command(tmp_path, "--training.max_steps", "2")
    run = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", *arguments],
        capture_output=True,
        text=True,
        timeout=200,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout.count("done after step 2") == 1
    assert {"final.json", "sample.txt", "config.yaml", "checkpoints"} <= {p.name for p in (tmp_path / "run").iterdir()}


def world(monkeypatch, **variables):
    for name, value in {"RANK": "0", "WORLD_SIZE": "2", "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "2"}.items():
        monkeypatch.setenv(name, variables.get(name, value))


def test_one_process_joins_nothing(tmp_path):
    assert toy_trainer(tmp_path).ranks is ALONE
    assert not torch.distributed.is_initialized()


def test_several_devices_need_torchrun(tmp_path):
    with pytest.raises(ValueError, match=r"training.devices = 4.*torchrun --nproc-per-node 4 -m sem train .*lightning"):
        toy_trainer(tmp_path, "training.devices=4")
    with pytest.raises(ValueError, match=r"torchrun --nnodes 2 --nproc-per-node 1 -m sem train"):
        toy_trainer(tmp_path, "training.num_nodes=2")


def test_combinations_of_many_processes_are_refused_before_they_meet(tmp_path, monkeypatch):
    world(monkeypatch)
    with pytest.raises(ValueError, match=r"batch_size = 6: expected a multiple of 4.* on each of 2 processes"):
        toy_trainer(tmp_path, "training.batch_size=6")
    with pytest.raises(ValueError, match="frequency_weighting = true: expected one process"):
        toy_trainer(tmp_path, "encoder.frequency_weighting=true")


def test_each_process_has_a_device_of_its_own(monkeypatch):
    assert own_device(torch.device("cuda")) == torch.device("cuda")
    world(monkeypatch, LOCAL_RANK="1")
    assert own_device(torch.device("cpu")) == torch.device("cpu")
    with pytest.raises(ValueError, match="training.device = 'cuda:0': expected 'cuda' for 2 processes"):
        own_device(torch.device("cuda:0"))
    world(monkeypatch, LOCAL_RANK="99", LOCAL_WORLD_SIZE="100")
    with pytest.raises(ValueError, match="torchrun --nproc-per-node 100: expected at most"):
        own_device(torch.device("cuda"))
