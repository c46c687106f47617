"""Kills training runs at random moments, and reads them beside their writer; says what was lost.

    python tools/torture.py kills --engine loop --kills 200       # or lightning, or ranks: two processes
    python tools/torture.py readers --reads 2000

A run that was killed and resumed must end as one that was left alone: parameters, optimizer, random numbers, place in
the text and logged losses, bit for bit. A reader of a run that is being written must never fail.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import shutil
import signal
import socket
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "python_tests" / "support"))

from small_model import SMALL_MODEL

from sem.config import SEMConfig
from sem.files import TEMPORARY
from sem.training.checkpoint import CheckpointStore, load
from sem.training.lightning.engine import SEMLightningTrainer
from sem.training.logging import read_csv
from sem.training.trainer import SEMTrainer

STEPS = 300
LONGEST = 1.5  # seconds until a kill; half of the kills wait for a checkpoint that is half written, for as long again
HUNTED = 0.5
MAY_DIFFER = ("/loop/elapsed_seconds", "/config/training/output_dir")


def config_of(folder: Path, text: Path, steps: int = STEPS) -> SEMConfig:
    return SEMConfig().with_overrides(
        *SMALL_MODEL,
        f"training.max_steps={steps}",
        "training.checkpoint_every=1",
        "training.batch_size=4",
        "training.micro_batch_size=2",
        "training.eval_every=1000",
        "training.eval_batches=1",
        "training.final_eval_batches=1",
        "training.log_every=1",
        "training.health_every=7",
        "training.warmup_steps=3",
        "training.num_threads=1",
        'training.loggers=["csv"]',
        "generation.max_new_tokens=4",
        f"training.output_dir={folder}",
        f'data.paths=["{text}"]',
    )


def write_text(folder: Path) -> Path:
    folder.mkdir()
    for k in range(6):
        lines = (f"line {7 * j} of file {k}: the wave {j % 13} turns\n" for j in range(200))
        (folder / f"{k}.txt").write_text("".join(lines))
    return folder


def fork(function: Callable[[], Any], log: Path, **environment: str) -> int:
    """The number of a child that calls ``function``, imports of the parent's included."""
    pid = os.fork()
    if pid:
        return pid
    status = 1
    try:
        os.environ.update(environment)
        out = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(out, 1)
        os.dup2(out, 2)
        function()
        status = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        os._exit(status)


class Run:
    """A run in a folder, as one process or several."""

    def __init__(self, engine: str, folder: Path, text: Path) -> None:
        self.engine, self.folder, self.text = engine, folder, text
        self.log = folder.with_suffix(".log")

    def start(self) -> list[int]:
        trainer = SEMLightningTrainer if self.engine == "lightning" else SEMTrainer

        def train() -> None:
            trainer(config_of(self.folder, self.text)).fit(resume="auto")

        if self.engine != "ranks":
            return [fork(train, self.log)]
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            world = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(probe.getsockname()[1])}
        return [fork(train, self.log, RANK=str(rank), LOCAL_RANK=str(rank), **world) for rank in range(2)]

    def half_written(self) -> bool:
        return any((self.folder / "checkpoints").glob(f"*{TEMPORARY}"))

    def finish(self) -> None:
        for pid in self.start():
            if os.waitpid(pid, 0)[1]:
                raise SystemExit(
                    f"{self.log}: a run that nobody disturbed ended with an error:\n{self.log.read_text()[-2000:]}"
                )


def entries(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        for key in value:
            yield from entries(value[key], f"{name}/{key}")
    elif isinstance(value, (list, tuple)):
        for k, item in enumerate(value):
            yield from entries(item, f"{name}/{k}")
    else:
        yield name, value


def same(a: Any, b: Any) -> bool:
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        bits = [x.contiguous().reshape(-1).view(torch.uint8) for x in (a, b)]
        return a.dtype == b.dtype and a.shape == b.shape and bool(bits[0].equal(bits[1]))
    return type(a) is type(b) and (a == b or a != a)


def differences(one: Path, other: Path) -> list[str]:
    """What the newest checkpoints and the logged losses of two runs do not have in common."""
    a, b = (dict(entries(load(CheckpointStore(folder / "checkpoints").paths()[-1]))) for folder in (one, other))
    found = [f"{name}: in one alone" for name in sorted(a.keys() ^ b.keys())]
    found += [name for name in a.keys() & b.keys() if not name.startswith(MAY_DIFFER) and not same(a[name], b[name])]
    losses = [{row["step"]: row.get("loss") for row in read_csv(folder / "metrics.csv")} for folder in (one, other)]
    if losses[0] != losses[1]:
        found.append("metrics.csv: loss")
    return found


def kills(engine: str, wanted: int, seed: int, work: Path) -> int:
    draw = random.Random(seed)
    text = write_text(work / "text")
    reference = Run(engine, work / "reference", text)
    reference.finish()
    done = in_write = before_first = whole = lost = 0
    started = time.monotonic()
    while done < wanted:
        run = Run(engine, work / "run", text)
        shutil.rmtree(run.folder, ignore_errors=True)
        while done < wanted:
            pids = run.start()
            moment, hunts = time.monotonic() + draw.uniform(0.05, LONGEST), draw.random() < HUNTED
            latest = moment + LONGEST
            ended: dict[int, int] = {}
            while len(ended) < len(pids):
                now = time.monotonic()
                if now > moment and (not hunts or run.half_written() or now > latest):
                    break
                for pid in set(pids) - ended.keys():
                    found, status = os.waitpid(pid, os.WNOHANG)
                    if found:
                        ended[pid] = status
                if now < moment:
                    time.sleep(0.001)
            if len(ended) == len(pids):
                if any(ended.values()):
                    print(f"a resumed run ended with an error:\n{run.log.read_text()[-2000:]}")
                    return 1
                break
            for pid in set(pids) - ended.keys():
                os.kill(pid, signal.SIGKILL)
            for pid in set(pids) - ended.keys():
                os.waitpid(pid, 0)
            done += 1
            in_write += run.half_written()
            before_first += not (run.folder / "checkpoints").is_dir()
            if done % 20 == 0:
                print(f"{done} of {wanted} kills, {time.monotonic() - started:.0f} s", file=sys.stderr, flush=True)
        run.finish()
        whole += 1
        found = differences(reference.folder, run.folder)
        if found:
            lost += 1
            print(f"{len(found)} entries differ: {found[:5]}")
    print(
        f"{engine}: {done} kills in {whole} runs, {in_write} of them with a checkpoint half written, {before_first}"
        f" before the first; runs that did not end as the undisturbed one: {lost}"
    )
    return 1 if lost else 0


def readers(wanted: int, work: Path) -> int:
    text = write_text(work / "text")
    run = Run("loop", work / "run", text)
    reads = failures = 0
    pids = run.start()
    while reads < wanted:
        if os.waitpid(pids[0], os.WNOHANG)[0]:
            shutil.rmtree(run.folder)
            pids = run.start()
        try:
            store = CheckpointStore(run.folder / "checkpoints")
            found = store.load_latest()
        except Exception as error:
            failures += 1
            print(f"read {reads}: {type(error).__name__}: {error}")
            found = None
        if found is not None:
            reads += 1
            if reads % 500 == 0:
                print(f"{reads} of {wanted} reads", file=sys.stderr, flush=True)
    os.kill(pids[0], signal.SIGKILL)
    os.waitpid(pids[0], 0)
    print(f"{reads} reads of the newest checkpoint beside its writer, failed: {failures}")
    return 1 if failures else 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    kill = commands.add_parser("kills")
    kill.add_argument("--engine", choices=("loop", "lightning", "ranks"), default="loop")
    kill.add_argument("--kills", type=int, default=200)
    kill.add_argument("--seed", type=int, default=5)
    read = commands.add_parser("readers")
    read.add_argument("--reads", type=int, default=2000)
    options = parser.parse_args()
    torch.set_num_threads(1)
    with contextlib.ExitStack() as stack:
        work = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="torture-")))
        if options.command == "readers":
            return readers(options.reads, work)
        return kills(options.engine, options.kills, options.seed, work)


if __name__ == "__main__":
    sys.exit(main())
