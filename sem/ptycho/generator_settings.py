"""What a generator is built from: plain values, which a checkpoint can hold."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from sem.settings import Section, setting, setting_infos, unknown_key

Architecture = Literal["fno", "hybrid", "stable_hybrid", "cnn"]
BlockNorm = Literal["instance", "rms", "none"]
HeadKind = Literal["cartesian", "polar"]
InputTransform = Literal["none", "log1p", "sqrt"]


@dataclass(frozen=True, kw_only=True)
class GeneratorSettings(Section):
    """The architecture of a network from patterns to patches; the defaults are the published size.

    Raises:
        ValueError: a value that is not allowed, in one line for each: the name, the value, what was expected.

    Example:
        >>> settings = GeneratorSettings(architecture="stable_hybrid", width=8, blocks=3)
        >>> GeneratorSettings.from_mapping(settings.to_mapping()) == settings
        True
        >>> GeneratorSettings(architecture="unet")
        Traceback (most recent call last):
        ValueError: generator.architecture = 'unet': expected one of fno, hybrid, stable_hybrid, cnn
    """

    section: ClassVar[str] = "generator"
    architecture: Architecture = setting("hybrid", "what it is built of")
    width: int = setting(32, "channels at the full side; below, twice as many at each halving", ge=1)
    modes: int = setting(
        12, "m: rows [0, m) and [N - m, N) by columns [0, m) of a spectrum; at most half the side", ge=1
    )
    negative_rows: bool = setting(True, "keep rows [N - m, N): without them waves along one diagonal do not pass")
    blocks: int = setting(4, "blocks of fno; levels of the others, each of half the side of the one above", ge=1)
    max_hidden: int | None = setting(None, "most channels; null: as many as the levels give", ge=1)
    layerscale_init: float = setting(1e-3, "stable_hybrid: initial factor of a block's branch", gt=0)
    block_norm: BlockNorm = setting("instance", "stable_hybrid: what a block's branch is divided by")
    head: HeadKind = setting("cartesian", "real and imaginary part, or amplitude and phase")
    input_transform: InputTransform = setting("none", "of the amplitudes before the first layer")
    channels: int = setting(1, "patterns of a sample, and patches", ge=1)

    def cross_checks(self) -> Iterator[str]:
        if self.max_hidden is not None and self.max_hidden < self.width:
            yield f"generator.max_hidden = {self.max_hidden}: expected at least generator.width = {self.width}"

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any]) -> GeneratorSettings:
        """From what :meth:`to_mapping` gave; what is not there has its default.

        Raises:
            ValueError: as the class does, and for an unknown name.
        """
        known = [info.key for info in setting_infos(cls)]
        unknown = [f"{cls.section}.{name}" for name in values if f"{cls.section}.{name}" not in known]
        if unknown:
            raise ValueError("\n".join(unknown_key(key, values[key.partition(".")[2]], known) for key in unknown))
        return cls(**values)

    def channels_at(self, level: int) -> int:
        """Channels after ``level`` halvings."""
        channels = self.width * 2**level
        return channels if self.max_hidden is None else min(channels, self.max_hidden)
