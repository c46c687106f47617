"""What the layers of a trained network do on a whole scan."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

from torch import Tensor

from sem.activations import Activations, Block, measure
from sem.ptycho.generators import Generator, layers_of
from sem.ptycho.training.data import NetworkScan
from sem.ptycho.training.inference import Trained


def measure_network(
    trained: Trained,
    data: NetworkScan,
    *,
    samples: int | None = None,
    batch: int = 64,
    progress: Callable[[int], None] | None = None,
) -> Activations:
    """Statistics of every layer, and of amplitude and phase of the output, which is the layer ``head``.

    Args:
        trained: of :func:`sem.ptycho.training.inference.load_network`.
        data: the scan, all of it, or its first ``samples`` patterns.
        batch: patterns at a time; it changes the statistics by no more than rounding.
        progress: told how many patterns a batch had, in each of the two passes.
    """
    inputs = data.inputs(trained.rms)[:samples]
    device = next(trained.model.parameters()).device
    found = measure(
        trained.model,
        _Batches(inputs, batch),
        lambda model, part: model(part.to(device)),
        layers=layers_of(trained.model),
        blocks=blocks_of(trained.model),
        progress=None if progress is None else lambda part: progress(len(part)),
    )
    summary = replace(
        found.summary,
        architecture=trained.config.generator.architecture,
        checkpoint=str(trained.path),
        data=data.name,
        samples=len(inputs),
        step=trained.step,
    )
    return replace(found, summary=summary)


def blocks_of(generator: Generator) -> dict[str, Block]:
    """The spectral blocks: their two branches, what goes in and comes out, and the factors on the branch, if any."""
    found = {}
    for name, module in layers_of(generator).items():
        spectral, local = getattr(module, "spectral", None), getattr(module, "local", None)
        if spectral is not None and local is not None:
            scale = getattr(getattr(module, "scale", None), "weight", None)
            found[name] = Block(body=module, spectral=spectral, local=local, layerscale=scale)
    return found


class _Batches:
    """The same batches at each pass."""

    def __init__(self, inputs: Tensor, size: int) -> None:
        self.inputs, self.size = inputs, size

    def __iter__(self) -> Iterator[Tensor]:
        return iter(self.inputs.split(self.size))
