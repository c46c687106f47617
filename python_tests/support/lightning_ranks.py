"""A script that trains a small real model under Lightning on as many processes as it is told, started by Lightning.

Arguments: folder, devices, and the rank and signal by which one process is made to end after the fifth step. Each
process saves the gradient of its first update and every loss as ``<folder>/rank<n>.pt``.
"""

import os
import signal
import sys
from pathlib import Path

import torch
from ranks import WAVES
from toy import RecordingDisplay, toy_config, toy_corpus

from sem.training.lightning.engine import SEMLightningTrainer


class EndingDisplay(RecordingDisplay):
    def __init__(self, number: int | None) -> None:
        super().__init__()
        self.number = number

    def update(self, step, share, seconds_left, figures, logged):
        super().update(step, share, seconds_left, figures, logged)
        if step == 5 and self.number is not None:
            signal.raise_signal(self.number)


def main(folder: Path, devices: str, victim: str = "none", name: str = "SIGKILL") -> None:
    torch.set_num_threads(1)
    rank = int(os.environ.get("LOCAL_RANK", 0))
    config = toy_config(folder / "run", *WAVES, "training.batch_size=8", f"training.devices={devices}")
    trainer = SEMLightningTrainer(config, corpus=toy_corpus())
    display = EndingDisplay(getattr(signal, name) if str(rank) == victim else None)
    loop = trainer.build_loop(store=trainer.store, display=display)
    gradients: dict[str, torch.Tensor] = {}

    def keep_first(*_: object) -> None:
        if not gradients:
            named = trainer.model.named_parameters()
            gradients.update({name: p.grad.clone() for name, p in named if p.grad is not None})

    loop.optimizer.register_step_pre_hook(keep_first)
    trainer.build_loop = lambda **options: loop  # the loop that is watched
    result = trainer.fit(display=display)
    found = {"losses": display.losses, "gradients": gradients, "step": result.step, "signal": result.interrupted_by}
    torch.save(found, folder / f"rank{rank}.pt")


if __name__ == "__main__":
    try:
        main(Path(sys.argv[1]), *sys.argv[2:])
    except Exception as error:
        print(f"{type(error).__name__}: {error}", flush=True)
        sys.exit(1)
