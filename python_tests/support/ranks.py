"""Runs of several processes on this machine, and what each of them is made to do in the tests of distribution.

As a script: take part in the run that RANK and WORLD_SIZE describe, carry out the scenarios, and save what they return
as ``<folder>/rank<n>.pt``.
"""

from __future__ import annotations

import atexit
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from processes import modules_path
from toy import RecordingDisplay, ToyDiagnostics, toy_config, toy_corpus, toy_trainer

from sem.training.trainer import SEMTrainer

WAVES = (
    "model.hidden_dim=16",
    "model.num_layers=2",
    "spinor.block_size=4",
    "spinor.state_dim=4",
    "spinor.mimo_groups=2",
    "encoder.sdr_candidates=16",
    "encoder.sdr_sparsity=4",
    "training.max_steps=8",
    "training.gradient_clip=0.05",
    "training.gradient_clip_kind=agc",
    "training.distributed_timeout=60",
)
"""A real model, small, in which nothing is drawn at random during training."""


def start_ranks(count: int, *arguments: str) -> list[subprocess.Popen[str]]:
    """``python arguments...`` as ``count`` ranks, without torchrun, which would end the others when one ends."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    world = {"WORLD_SIZE": str(count), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "OMP_NUM_THREADS": "1"}
    path = modules_path()
    return [
        subprocess.Popen(
            [sys.executable, *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=os.environ | world | {"RANK": str(rank), "LOCAL_RANK": str(rank), "PYTHONPATH": path},
        )
        for rank in range(count)
    ]


def wave_trainer(folder: Path, *overrides: str) -> SEMTrainer:
    return SEMTrainer(toy_config(folder, *WAVES, *overrides), corpus=toy_corpus())


def first_gradients(folder: Path, *overrides: str) -> dict[str, torch.Tensor]:
    """The gradient of every parameter at the first update."""
    trainer = wave_trainer(folder, "training.gradient_clip_kind=none", *overrides)
    loop = trainer.build_loop(validate=None)
    gradients: dict[str, torch.Tensor] = {}
    loop.optimizer.register_step_pre_hook(
        lambda *_: gradients.update(
            {name: p.grad.clone() for name, p in trainer.model.named_parameters() if p.grad is not None}
        )
    )
    loop.run(max_steps=1)
    return gradients


def steps_of(trainer: SEMTrainer, resume: str | None = None) -> dict[str, Any]:
    """What a whole run shows, returns and leaves in the parameters."""
    display = RecordingDisplay()
    result = trainer.fit(resume=resume, display=display)
    return {
        "losses": display.losses,
        "messages": display.messages,
        "figures": result.figures,
        "step": result.step,
        "interrupted_by": result.interrupted_by,
        "parameters": [p.detach().clone() for p in trainer.model.parameters()],
    }


def accumulation_1(folder: Path) -> Any:
    return first_gradients(folder, "training.batch_size=4", "training.micro_batch_size=2")


def accumulation_2(folder: Path) -> Any:
    return first_gradients(folder, "training.batch_size=8", "training.micro_batch_size=2")


def waves(folder: Path) -> Any:
    """A run of the real model, noting what this process writes; the folder stays for a resume."""
    written: list[str] = []

    def note(event: str, arguments: tuple[Any, ...]) -> None:
        opened_to_write = event == "open" and isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR)
        if opened_to_write or event in ("os.mkdir", "os.rename", "os.remove"):
            written.extend(str(name) for name in arguments[:2] if str(name).startswith(str(folder)))

    sys.addaudithook(note)
    shown = steps_of(wave_trainer(folder))
    return shown | {"written": list(written)}


def whole(folder: Path) -> Any:
    """Dropout, so that generators count."""
    return steps_of(toy_trainer(folder))


def parts(folder: Path) -> Any:
    """The same in two pieces."""
    trainer = toy_trainer(folder)
    display = RecordingDisplay()
    trainer.build_loop(store=trainer.store, display=display).run(max_steps=5)
    torch.randn(3 + trainer.ranks.rank)
    resumed = steps_of(toy_trainer(folder), resume="auto")
    return resumed | {"losses": display.losses + resumed["losses"]}


def nan_on_the_last(folder: Path) -> Any:
    trainer = toy_trainer(folder, "training.max_steps=4")
    forward = trainer.model.loss

    def loss(*arguments: Any, **options: Any) -> Any:
        figures = forward(*arguments, **options)
        if trainer.ranks.rank == 1 and trainer.model.calls == 2:
            figures["loss"] = figures["loss"] * float("nan")
        return figures

    trainer.model.loss = loss
    return steps_of(trainer)


def signal_to_the_last(folder: Path) -> Any:
    trainer = toy_trainer(folder)
    measured = []

    class Interrupted(ToyDiagnostics):
        def summary(self) -> dict[str, float]:
            measured.append(1)
            if trainer.ranks.rank == 1 and len(measured) == 2:  # in step 4, after its figures were exchanged
                signal.raise_signal(signal.SIGTERM)
            return super().summary()

    trainer.diagnostics = Interrupted
    return steps_of(trainer)


def ill_on_the_last(folder: Path) -> Any:
    trainer = toy_trainer(folder, "training.max_steps=2")
    if trainer.ranks.rank == 1:
        trainer.diagnostics = lambda: ToyDiagnostics(cg_residual=0.5)
    return steps_of(trainer)


def taken_folder(folder: Path) -> Any:
    """The folder of another scenario, without leave to continue it."""
    try:
        toy_trainer(folder.parent / "whole").fit(display=RecordingDisplay())
    except ValueError as error:
        return str(error)


def different_starts(folder: Path) -> Any:
    trainer = toy_trainer(folder)
    loop = trainer.build_loop()
    loop.state.step = trainer.ranks.rank
    try:
        loop.run(max_steps=1)
    except ValueError as error:
        return str(error)


SCENARIOS: tuple[Callable[[Path], Any], ...] = (
    accumulation_1,
    accumulation_2,
    waves,
    whole,
    parts,
    nan_on_the_last,
    signal_to_the_last,
    ill_on_the_last,
    taken_folder,
    different_starts,
)


def note_threads(path: Path) -> None:
    """Write down the names of this process's threads, as the system knows them."""
    path.write_text("\n".join(comm.read_text().strip() for comm in Path("/proc/self/task").glob("*/comm")))


if __name__ == "__main__":
    torch.set_num_threads(1)
    base = Path(sys.argv[1])
    atexit.register(note_threads, base / f"rank{os.environ['RANK']}.threads")  # the first is called last
    results = {scenario.__name__: scenario(base / scenario.__name__) for scenario in SCENARIOS}
    torch.save(results, base / f"rank{os.environ['RANK']}.pt")
