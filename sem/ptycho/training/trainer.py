"""A network's training run: generator, scans, objective, and the scores at its end."""

from __future__ import annotations

import json
from typing import Any

import torch
from torch import nn

from sem.files import write_text
from sem.ptycho.collapse import judge
from sem.ptycho.files import read_scan
from sem.ptycho.generators import build_generator
from sem.ptycho.pictures import draw_error, draw_object
from sem.ptycho.training.data import NetworkScan, PatternBatches, nearest, neighbours, split
from sem.ptycho.training.floors import loss_floors
from sem.ptycho.training.inference import predict
from sem.ptycho.training.objective import PhysicsObjective
from sem.ptycho.training.results import inner, keep_result, score
from sem.ptycho.training.settings import NetworkConfig
from sem.run_names import FINAL, RESULTS
from sem.training.checkpoint import load, write_atomically
from sem.training.logging import read_csv
from sem.training.plot import Panel, draw
from sem.training.progress import ProgressDisplay, Shown
from sem.training.run import RunTrainer
from sem.training.step import Objective

BEST = "best.pt"
PANELS = (
    Panel("learning rate", ("learning_rate",)),
    Panel("gradient norm", ("grad_norm", "grad_norm_clipped"), log=True),
    Panel("throughput", ("patterns_per_second",)),
)
SCORES = ("amp_ssim", "phase_ssim", "amp_mae")
"""Those that ``final.json`` holds, each with its floor, for tables of many runs."""


class NetworkTrainer(RunTrainer):
    """Trains the generator that ``config`` describes on a scan whose probe is known, by the physics alone.

    Beside what every run keeps (:class:`~sem.training.run.RunTrainer`), ``results/`` gets ``best.pt``, the parameters
    with the least held-out loss, and at the end the reconstructions of the training and the test scan as ``.h5`` and
    pictures, their scores beside their floors in ``scores.json``, and whether the network collapsed. ``final.json``
    holds the figures that a table of runs needs.

    Raises:
        ValueError: a file that cannot be read or lacks a probe, scans that do not fit each other.

    Example:
        >>> import tempfile
        >>> from sem.ptycho import ScanFile, disk_probe, lines_object, raster_scan, simulate, write_scan
        >>> folder = tempfile.mkdtemp()
        >>> truth = lines_object(48, 20, seed=1)
        >>> scan, probe = simulate(truth, disk_probe(16, 4.0), raster_scan(8, 8, 3, jitter=0), photons=1e7)
        >>> write_scan(f"{folder}/scan.h5", ScanFile(scan, probe, truth))
        >>> sizes = ("generator.width=4", "generator.blocks=2", "generator.modes=4", "training.max_steps=2")
        >>> run = (f"data.train={folder}/scan.h5", f"training.output_dir={folder}/run")
        >>> config = NetworkConfig().with_overrides(*sizes, *run)
        >>> NetworkTrainer(config).fit().step  # doctest: +ELLIPSIS
        losses without learning: zeros 1.0000...
        2
    """

    shown = (
        Shown("patterns_per_second", "patterns/s", ".0f"),
        Shown("loss", "loss", ".4f"),
        Shown("val_loss", "held-out loss", ".4f"),
        Shown("grad_norm", "gradient", ".2g"),
    )

    objective: PhysicsObjective
    _best: tuple[int, float] | None = None
    """Step and held-out loss of what ``best.pt`` holds, once it is known."""

    def __init__(self, config: NetworkConfig) -> None:
        self.scan = _read(config.data.train, "data.train")
        self.test = None if config.data.test is None else _read(config.data.test, "data.test")
        if self.test is not None and self.test.scan.side != self.scan.scan.side:
            sides = f"{self.scan.scan.side}, data.train's, got {self.test.scan.side}"
            raise ValueError(f"data.test = {config.data.test!r}: expected patterns of side {sides}")
        super().__init__(config)

    def build_model(self) -> nn.Module:
        """The generator for the scan's patterns; its weights are drawn from ``training.seed``."""
        return build_generator(self.config.generator, self.scan.scan.side, seed=self.config.training.seed)

    def build_data(self) -> tuple[Any, Any, Objective]:
        """Batches of the patterns that are not held out, alone or in groups of neighbours, the held-out ones, each with
        its nearest neighbours where there are groups, and the physics as loss."""
        training, scan = self.config.training, self.scan.scan
        chosen, held_out = split(len(scan), self.config.data.validation_share, self.config.data.split_seed)
        grouped = training.overlap == "group"
        groups = chosen[neighbours(scan.positions[chosen], training.group_side)] if grouped else None
        batches = PatternBatches(
            chosen,
            groups,
            size=training.micro_batch_size,
            seed=training.seed,
            ragged=training.last_batch != "full",
            rank=self.ranks.rank,
            world_size=self.ranks.world_size,
        )
        full = batches.count * batches.groups.shape[1] if training.last_batch == "sum" else None
        objective = PhysicsObjective(self.scan, training.loss, chosen, self.device, full=full)
        held = held_out.unsqueeze(1)
        if grouped and len(held_out):
            near = nearest(scan.positions[held_out], scan.positions[chosen], training.group_side**2 - 1)
            held = torch.cat([held, chosen[near]], 1)
        self.chosen = chosen
        return batches, held.split(max(1, 64 // held.shape[1])) if len(held_out) else (), objective

    def loop_parts(self) -> dict[str, Any]:
        """What checkpoints hold beside the configuration: side, scale and probe, with which the network can be used
        without the scan."""
        network = {"side": self.scan.scan.side, "rms": self.objective.rms, "probe": self.scan.probe}
        return {"extra": {"config": self.config.to_dict(), "network": network}}

    def keep(self, display: ProgressDisplay) -> None:
        """Measure and show the losses that are reached without learning, and write them to ``floors.json``."""
        self.floors = loss_floors(self.objective, self.chosen)
        told = ", ".join(f"{name.replace('_', ' ')} {loss:.4f}" for name, loss in self.floors.items())
        display.message(f"losses without learning: {told}")
        write_text(self.folder / RESULTS / "floors.json", json.dumps(self.floors, indent=2) + "\n")

    def validate(self, *, final: bool = False) -> dict[str, float]:
        """``val_loss``: of the held-out patterns, each in the midst of its group. The least so far is kept."""
        if not len(self.validation_loader):
            return {}
        losses = []
        was_training = self.model.training
        self.model.eval()
        with torch.no_grad(), self.precision.forward_context():
            for batch in self.validation_loader:
                _, each = self.objective.compare(self.objective.patches(self.model, batch.flatten()), batch)
                losses.append(each.view(batch.shape)[:, 0])
        self.model.train(was_training)
        loss = float(torch.cat(losses).double().mean())
        if self.ranks.is_first:
            self._keep_best(loss)
        return {"val_loss": loss}

    def _keep_best(self, loss: float) -> None:
        path, step = self.folder / RESULTS / BEST, self.loop.state.step
        if self._best is None and path.exists():  # of the run that this one continues
            kept = load(path)
            self._best = kept["step"], kept["val_loss"]
        if self._best is not None and self._best[0] <= step and self._best[1] <= loss:
            return
        parts = {**self.loop_parts()["extra"], "model": self.model.state_dict(), "step": step, "val_loss": loss}
        write_atomically(path, parts)
        self._best = step, loss

    def finish(self, display: ProgressDisplay, step: int) -> dict[str, float]:
        """Score the held-out patterns, write reconstructions, pictures, ``scores.json``, ``final.json`` and
        ``curves.png``, and return the scores."""
        display.message("scoring the held-out patterns and reconstructing")
        figures: dict[str, Any] = self.validate(final=True)
        if not self.ranks.is_first:
            return figures
        table = self.folder / "metrics.csv"
        history = read_csv(table) if table.exists() else []  # training.loggers may name others alone
        # on other data than it learned from, the losses of training say nothing
        losses = [row["loss"] for row in history if "loss" in row] or None
        scored: dict[str, Any] = {"floors": self.floors}
        for name, data, told in (("train", self.scan, losses), ("test", self.test, None)):
            if data is not None:
                scored[name], found = self._reconstruct(name, data, step, told)
                figures |= {f"{name}_{key}": value for key, value in found.items()}
        if self._best is not None:
            figures["best_val_loss"] = self._best[1]
        write_text(self.folder / RESULTS / "scores.json", json.dumps({"step": step, **scored}, indent=2) + "\n")
        write_text(self.folder / FINAL, json.dumps({"step": step} | figures, indent=2) + "\n")
        if history:
            levels = {"zero object": self.floors["zeros"], "best constant": self.floors["constant"]}
            panels = (Panel("loss", ("loss", "val_loss"), log=True, lines=levels), *PANELS)
            draw(history, panels, self.folder / "curves.png", self.folder.name)
        return figures

    def _reconstruct(
        self, name: str, data: NetworkScan, step: int, losses: list[float] | None
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Object, picture, scores beside floors and the collapse's verdict of one scan; and what a table needs."""
        folder = self.folder / RESULTS
        predicted = predict(self.model, data, self.objective.rms)
        title = f"{self.config.generator.architecture}, step {step}"
        found = keep_result(folder / f"{name}.h5", title, data, predicted, run=str(self.folder))
        verdict = judge(
            image=predicted.stitched.object,
            truth=data.truth,
            crop=inner(data, self.config.data.crop),
            patches=predicted.patches,
            light=data.power,
            losses=losses,
            best_constant=self.floors["constant"],
        )
        table: dict[str, Any] = {
            "collapsed": verdict.collapsed,
            "patterns_per_second": predicted.patterns_per_second,
        }
        kept: dict[str, Any] = {"collapse": verdict.as_dict()}
        draw_object(found, folder / f"{name}.png")
        if data.truth is not None:
            draw_error(found, data.truth, folder / f"{name}-error.png")
            scores = score(found, data, self.config.data.crop)
            kept["scores"] = scores.as_dict()
            own, floor = kept["scores"]["reconstruction"], kept["scores"]["constant"]
            table |= {key: own[key] for key in SCORES} | {f"{key}_floor": floor[key] for key in SCORES}
        return kept, table


def _read(path: str, key: str) -> NetworkScan:
    """A scan by the setting that names its file."""
    try:
        return NetworkScan.from_file(path, read_scan(path))
    except OSError as error:
        raise ValueError(f"{key} = {path!r}: cannot be read ({error.strerror or error})") from None
