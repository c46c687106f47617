"""What the axes of a layer's output are."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Layout:
    """The meaning of a tensor's axes, each of which is named once.

    Attributes:
        sample: the axis of the samples of a batch.
        channel: the axis of the channels; None where a sample has one channel.
        positions: the axes of space or of the sequence, in order; none where there are none.

    Example:
        >>> import torch
        >>> Layout(sample=1, channel=0, positions=(2,)).arranged(torch.zeros(3, 5, 7)).shape
        torch.Size([5, 3, 7])
    """

    sample: int = 0
    channel: int | None = 1
    positions: tuple[int, ...] = ()

    def arranged(self, output: Tensor) -> Tensor:
        """A view of ``output`` as `[B, C, *positions]`.

        Raises:
            ValueError: an axis has no meaning, or two.
        """
        named = (self.sample, *(() if self.channel is None else (self.channel,)), *self.positions)
        count = output.dim()
        axes = [axis + count if axis < 0 else axis for axis in named]
        if sorted(axes) != list(range(count)):
            raise ValueError(f"layout: expected each axis of {list(output.shape)} to be named once, got {self}")
        arranged = output.permute(axes)
        return arranged.unsqueeze(1) if self.channel is None else arranged


def layout_by_axes(name: str, output: Tensor) -> Layout | None:
    """The usual layout for a number of axes: vectors `[B, C]`, sequences `[B, T, C]`, images `[B, C, H, W]`, volumes
    `[B, C, D, H, W]`, numbers `[B]`; None for a single number, which is no layer's output.

    Example:
        >>> import torch
        >>> layout_by_axes("attention", torch.zeros(2, 16, 64))
        Layout(sample=0, channel=2, positions=(1,))
    """
    axes = output.dim()
    if axes == 0:
        return None
    if axes == 1:
        return Layout(channel=None)
    if axes == 3:
        return Layout(channel=2, positions=(1,))
    return Layout(positions=tuple(range(2, axes)))
