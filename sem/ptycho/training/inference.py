"""From a trained network to an object: every pattern through the network, the patches stitched."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from sem.ptycho.generators import Generator, build_generator
from sem.ptycho.stitching import Stitched, stitch
from sem.ptycho.training.data import NetworkScan
from sem.ptycho.training.settings import NetworkConfig
from sem.training.checkpoint import CheckpointError, load, load_parameters
from sem.training.run_folder import open_checkpoint


class Predicted(NamedTuple):
    """``patches [J, N, N]`` complex64, stitched to an object, at ``patterns_per_second``."""

    patches: Tensor
    stitched: Stitched
    patterns_per_second: float


def predict(
    model: nn.Module,
    data: NetworkScan,
    rms: float,
    *,
    batch: int = 64,
    progress: Callable[[int], None] | None = None,
) -> Predicted:
    """All patterns of a scan through ``model``, in evaluation mode; its mode is put back.

    Args:
        rms: what the inputs are divided by: the training set's, which a checkpoint holds.
        batch: patterns at a time.
        progress: told how many are done.
    """
    device = next(model.parameters()).device
    inputs = data.inputs(rms)
    patches: list[Tensor] = []
    was_training = model.training
    model.eval()
    begun = time.monotonic()
    try:
        with torch.no_grad():
            for part in inputs.split(batch):
                patches.append(model(part.to(device)).squeeze(1).cpu())
                if progress is not None:
                    progress(sum(map(len, patches)))
    finally:
        model.train(was_training)
    rate = len(inputs) / max(time.monotonic() - begun, 1e-9)
    found = torch.cat(patches)
    return Predicted(found, stitch(found, data.scan.positions, data.object_shape, probe=data.probe), rate)


class Trained(NamedTuple):
    """A network from a checkpoint: in evaluation mode, with what its inputs are divided by and where it stood."""

    model: Generator
    config: NetworkConfig
    rms: float
    step: int
    path: Path


def load_network(where: str | Path, device: torch.device | str = "cpu") -> Trained:
    """The network of a checkpoint, of ``results/best.pt``, or of a run's folder: its newest checkpoint.

    The architecture is the checkpoint's own, and its parameters are loaded strictly.

    Raises:
        CheckpointError: there is none, it is damaged, or no network's.
        ValueError: parameters are missing or too many; the message lists them.
    """
    path = Path(where)
    path, content = (path, load(path)) if path.is_file() else open_checkpoint(path)
    network = content.get("network")
    if not isinstance(network, dict) or not {"side", "rms"} <= network.keys() or "config" not in content:
        raise CheckpointError(f"{path}: expected a checkpoint of a ptychographic network, got {sorted(content)}")
    config = NetworkConfig.from_dict(content["config"])
    model = build_generator(config.generator, int(network["side"])).to(device)
    try:
        load_parameters(model, content)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    step = content["loop"]["step"] if "loop" in content else content["step"]
    return Trained(model.eval(), config, float(network["rms"]), int(step), path)
