"""A model run over a whole data set, twice, with its layers watched."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn

from sem.activations.blocks import Block, BlockStatistics
from sem.activations.layers import first_tensor, holds_numbers, layers_of
from sem.activations.layout import Layout, layout_by_axes
from sem.activations.record import Activations, Summary
from sem.activations.statistics import LayerStatistics


def measure(
    model: nn.Module,
    batches: Iterable[Any],
    call: Callable[[nn.Module, Any], Any] = lambda model, batch: model(batch),
    *,
    layers: str | Mapping[str, nn.Module] = "*",
    layout: Callable[[str, Tensor], Layout | None] = layout_by_axes,
    blocks: Mapping[str, Block] | None = None,
    progress: Callable[[Any], None] | None = None,
) -> Activations:
    """The statistics of the layers of ``model`` over all ``batches``.

    The data set is gone through twice: for ranges and moments, and for the histograms behind the percentiles. Sums are
    in float64. How the samples are split into batches changes the percentiles by less than
    ``percentile_error`` and everything else by no more than it changes the model's own outputs. The model is in
    evaluation mode and without gradients meanwhile; its modules' modes, its hooks and torch's random generators are
    afterwards what they were, and both passes draw the same random numbers.

    A layer that is called several times for a batch has an entry for each: ``name``, ``name#2``, ``name#3`` ... Entries
    are in the order in which layers first returned. One that hands on the very tensor of the layer before it, as a
    container does that of its last layer, has none unless it is named. An entry has, over all samples, channels and
    positions:

    - ``count``: finite real numbers; ``nonfinite``: the others, which are left out of all that follows;
    - ``channels``: their number; ``dead_channels``, ``dead_share``: those whose standard deviation is at most 1e-6 of
      the layer's, which are all of a constant layer;
    - ``mean``, ``std``: with their signs; ``std`` divides by the number;
    - ``min``, ``max``, and ``p1``, ``p5``, ``p50``, ``p95``, ``p99`` as of :func:`numpy.percentile`, but for at most
      ``percentile_error``, a 4096th of the range;
    - ``mean_abs``: mean of abs(a); ``rel_amp_std``: the standard deviation of abs(a) over that mean;
    - ``zero_share``: numbers that are exactly 0;
    - ``dc_share``: abs(mean over positions)^2 of each channel of each sample, over the mean square;
    - ``low_freq_ratio``: energy at frequencies 0 < abs(q) <= 1/8 cycles per position over that at all q but 0, of the
      channels of samples without a number that is not finite;
    - ``between_sample_share``: variance over samples at each channel and position, averaged, over the variance of all
      numbers; 0 where the layer ignores its input.

    ``dc_share`` and ``low_freq_ratio`` are None where a layer has no positions, ``between_sample_share`` where there is
    one sample or their shapes differ, a ratio where it is 0/0 (but ``between_sample_share`` of a constant layer is 0).

    **Complex outputs.** Everything above is of the real and imaginary parts together, as of a real layer with two
    numbers for one (``count`` is twice that of the complex numbers; a channel's deviation is that of both parts about
    its complex mean; a number with a part that is not finite is left out whole), but for ``mean_abs`` and
    ``rel_amp_std``, which are of abs(z). Beside it are ``amplitude_`` and ``phase_`` with ``mean``, ``std``, ``min``,
    ``max``, percentiles and ``percentile_error``: of abs(z), and of the phase in (-pi, pi] of what is not 0.
    ``phase_mean`` and ``phase_std`` are the mean direction and the circular standard deviation ``sqrt(-2 ln R)``, which
    do not see where the circle is cut; the phase's percentiles do.

    Args:
        model: any module, on any device.
        batches: gone through twice, the same both times: a list, a loader; not a generator.
        call: runs the model on a batch; ``model(batch)`` by default.
        layers: submodules by name, or the pattern of names that :func:`layers_of` takes. Of a pattern's modules those
            are measured that return a tensor of floating or complex numbers; a module that is named must.
        layout: the meaning of the axes of a layer's output, given its name and the output; None leaves it out.
        blocks: what belongs together, by name, for ``spectral_local_ratio`` = rms(spectral) / rms(local),
            ``residual_ratio`` = rms(y - x) / rms(x) and ``layerscale_mean``, ``_min`` and ``_max``.
        progress: called with each batch that is done, in both passes.

    Returns:
        The statistics; of the summary, ``architecture`` and ``parameters`` are filled in.

    Raises:
        ValueError: there is no batch, the two passes differ, no layer returned a tensor, a named one did not, a
            layout does not fit, or a layer's channels change.

    Example:
        >>> model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU())
        >>> found = measure(model, [torch.randn(8, 1, 9, 9), torch.randn(3, 1, 9, 9)], layers="[01]")
        >>> list(found.layers), found.layers["0"]["count"], found.layers["1"]["min"]
        (['0', '1'], 2156, 0.0)
    """
    if isinstance(batches, Iterator):
        raise ValueError(f"batches: expected what can be gone through twice, got a {type(batches).__name__}")
    named = not isinstance(layers, str)
    modules = layers_of(model, layers) if isinstance(layers, str) else dict(layers)
    watch = _Watch(layout, named)
    parts = {name: BlockStatistics(block) for name, block in (blocks or {}).items()}
    with _evaluating(model):
        for second in (False, True):
            watch.second = second
            with ExitStack() as hooks, _repeatable_draws(model):
                for name, module in modules.items():
                    hooks.callback(module.register_forward_hook(watch.hook(name)).remove)
                for name, part in () if second else parts.items():
                    _watch_block(hooks, name, part)
                count = 0
                for batch in batches:
                    watch.begin_batch()
                    call(model, batch)
                    count += 1
                    if progress is not None:
                        progress(batch)
            if not count:
                raise ValueError(f"batches: expected at least one in each of two passes, got none in pass {1 + second}")
    return Activations(
        Summary(type(model).__name__, sum(parameter.numel() for parameter in model.parameters())),
        watch.statistics(modules),
        {name: part.statistics() for name, part in parts.items()},
    )


class _Watch:
    """The statistics of each layer, and the hooks that feed them."""

    def __init__(self, layout: Callable[[str, Tensor], Layout | None], named: bool) -> None:
        self.layout, self.named = layout, named
        self.second = False
        self.found: dict[str, LayerStatistics] = {}
        self.begin_batch()

    def begin_batch(self) -> None:
        self.calls: Counter[str] = Counter()
        self._last: tuple[Tensor, int] | None = None

    def hook(self, name: str) -> Callable[[nn.Module, Any, Any], None]:
        def see(module: nn.Module, arguments: Any, output: Any) -> None:
            self.calls[name] += 1
            turn = self.calls[name]
            self._see(name if turn == 1 else f"{name}#{turn}", output)

        return see

    def _see(self, name: str, output: Any) -> None:
        if not holds_numbers(output):
            if self.named:
                got = f"{output.dtype}" if isinstance(output, Tensor) else type(output).__name__
                raise ValueError(f"layer {name!r}: expected a tensor of floating or complex numbers, got {got}")
            return
        if not self.named and self._handed_on(output):
            return
        layout = self.layout(name, output)
        if layout is None:
            return
        with _naming(f"layer {name!r}"):
            if not self.second:
                self.found.setdefault(name, LayerStatistics()).see(output, layout)
            elif name in self.found:
                self.found[name].sort_in(output, layout)

    def _handed_on(self, output: Tensor) -> bool:
        """Whether this is the very tensor that the layer before returned, and nothing was written to it since."""
        if output.is_inference():  # has no count of writes
            return False
        before, self._last = self._last, (output, output._version)
        return before is not None and before[0] is output and before[1] == output._version

    def statistics(self, modules: Mapping[str, nn.Module]) -> dict[str, dict[str, Any]]:
        missing = [name for name in modules if name not in self.found]
        if missing if self.named else not self.found:
            raise ValueError(f"layers: expected a tensor from {', '.join(missing)}, got none")
        for name, layer in self.found.items():
            with _naming(f"batches: layer {name!r}"):
                layer.check_passes()
        return {name: layer.statistics() for name, layer in self.found.items()}


def _watch_block(hooks: ExitStack, name: str, part: BlockStatistics) -> None:
    def see_body(module: nn.Module, arguments: tuple[Any, ...], keywords: dict[str, Any], output: Any) -> None:
        x = first_tensor((*arguments, *keywords.values()))
        if x is None or not holds_numbers(output):
            raise ValueError(f"block {name!r}: expected a body from a tensor to a tensor")
        with _naming(f"block {name!r}"):
            part.see_body(x, output)

    def see_branch(branch: str) -> Callable[[nn.Module, Any, Any], None]:
        def see(module: nn.Module, arguments: Any, output: Any) -> None:
            if not holds_numbers(output):
                raise ValueError(f"block {name!r}: expected a tensor from the {branch} branch")
            part.see_branch(branch, output)

        return see

    block = part.block
    if block.body is not None:
        hooks.callback(block.body.register_forward_hook(see_body, with_kwargs=True).remove)
    for branch, module in (("spectral", block.spectral), ("local", block.local)):
        if module is not None:
            hooks.callback(module.register_forward_hook(see_branch(branch)).remove)


@contextlib.contextmanager
def _naming(what: str) -> Iterator[None]:
    """Say in an error what it is about."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"{what}: {error}") from None


@contextlib.contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    """Evaluation mode without gradients; each module's own mode comes back."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for module, mode in modes:
            module.training = mode


@contextlib.contextmanager
def _repeatable_draws(model: nn.Module) -> Iterator[None]:
    """Torch's generators, of the CPU and of the model's devices, are afterwards in the state they are in now."""
    devices = {tensor.device for tensor in (*model.parameters(), *model.buffers())}
    with ExitStack() as forks:
        forks.enter_context(torch.random.fork_rng(devices=[]))
        for kind in ("cuda", "xpu"):
            numbers = [device.index or 0 for device in devices if device.type == kind]
            if numbers:
                forks.enter_context(torch.random.fork_rng(devices=numbers, device_type=kind))
        yield
