"""What a reconstruction is told: engines, sweeps, probe, positions, when to stop. Free of torch, which a run loads."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, NamedTuple

from sem.settings import Section, SettingInfo, setting, setting_infos, shorten


class EngineKind(NamedTuple):
    """An engine by its class in :mod:`sem.ptycho`, which of :class:`EngineSettings` are its own, and those arguments of
    the class that make it what its name says."""

    maker: str
    help: str
    options: tuple[str, ...]
    settings: Mapping[str, Any] = {}


ENGINES = {
    "epie": EngineKind("PIE", "ePIE, one pattern after the other", ("object_step", "probe_step")),
    "rpie": EngineKind(
        "PIE", "ePIE whose steps dim light does not hold up", ("alpha", "object_step", "probe_step"), {"alpha": 0.1}
    ),
    "dm": EngineKind("Projections", "difference map, all patterns at once", ("inner",)),
    "raar": EngineKind("Projections", "relaxed averaged alternating reflections", ("beta", "inner"), {"beta": 0.8}),
    "lsqml": EngineKind("LSQML", "mini-batches, the steps that fit best", ("batch", "damping")),
    "ml": EngineKind("MaximumLikelihood", "Adam on exact gradients", ("kind", "rate", "probe_rate", "batch")),
}


@dataclass(frozen=True, kw_only=True)
class EngineSettings(Section):
    """What engines can be told beside what all of them are; None: the engine's own default."""

    section: ClassVar[str] = "engine"

    alpha: float | None = setting(None, "how much the brightest light limits the steps in dim light")
    beta: float | None = setting(None, "relaxation")
    inner: int | None = setting(None, "overlap projections of a sweep", ge=1)
    object_step: float | None = setting(None, "size of the object's steps", gt=0)
    probe_step: float | None = setting(None, "size of the probe's steps", gt=0)
    batch: int | None = setting(None, "patterns of a step", ge=1)
    damping: float | None = setting(None, "share of the brightest light added where it divides")
    kind: str | None = setting(None, "amplitude, poisson, intensity or amplitude_mae")
    rate: float | None = setting(None, "of Adam for the object, falls along a cosine", gt=0)
    probe_rate: float | None = setting(None, "of Adam for the probe, relative to rate", gt=0)


OWN: dict[str, SettingInfo] = {info.name: info for info in setting_infos(EngineSettings)}


def engines_with(option: str) -> list[str]:
    """The names of the engines that take a setting."""
    return [name for name, kind in ENGINES.items() if option in kind.options]


@dataclass(frozen=True)
class Stage:
    """Sweeps of one engine, with settings of its own; those left out have the engine's defaults.

    Raises:
        ValueError: no such engine, fewer than one sweep, a setting that the engine does not take.

    Example:
        >>> Stage.parse("ml:10,kind=poisson")
        Stage(engine='ml', sweeps=10, settings={'kind': 'poisson'})
        >>> str(Stage("rpie", 30, {"alpha": 0.2}))
        'rpie:30,alpha=0.2'
    """

    engine: str
    sweeps: int
    settings: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.engine not in ENGINES:
            raise ValueError(f"engine: expected one of {', '.join(ENGINES)}, got {self.engine!r}")
        if self.sweeps < 1:
            raise ValueError(f"{self.engine}: expected at least one sweep, got {self.sweeps}")
        known = ENGINES[self.engine].options
        for name in self.settings:
            if name not in known:
                raise ValueError(f"{name}: engine {self.engine} takes {', '.join(known)}, got {name}")

    @classmethod
    def parse(cls, text: str) -> Stage:
        """Of ``ENGINE:SWEEPS[,NAME=VALUE...]``.

        Raises:
            ValueError: another text, or as :class:`Stage`.
        """
        head, *rest = text.split(",")
        engine, _, sweeps = head.partition(":")
        pairs = [part.partition("=") for part in rest]
        if not sweeps.isdecimal() or not all(equals for _, equals, _ in pairs):
            raise ValueError(f"expected ENGINE:SWEEPS[,NAME=VALUE...], as ml:10,kind=poisson, got {shorten(text)}")
        read = {name: OWN[name].convert(OWN[name].parse(value)) for name, _, value in pairs if name in OWN}
        return cls(engine, int(sweeps), {name: read.get(name, value) for name, _, value in pairs})

    def __str__(self) -> str:
        return ",".join([f"{self.engine}:{self.sweeps}", *(f"{name}={value}" for name, value in self.settings.items())])


LIMITS = ("minutes", "chi_squared")
"""Settings of a :class:`Recipe` that say when to stop, and nothing of what is done: a run goes on under others."""


@dataclass(frozen=True, kw_only=True)
class Recipe(EngineSettings):
    """What a reconstruction is told. Settings of an engine belong to the first stage's.

    Raises:
        ValueError: one line for every impossible value.

    Example:
        >>> [str(stage) for stage in Recipe(engine="raar", sweeps=20, then=("ml:10",)).stages]
        ['raar:20', 'ml:10']
    """

    section: ClassVar[str] = "reconstruction"

    engine: str = setting("rpie", "how")
    sweeps: int = setting(30, "passes over all patterns", ge=1)
    then: tuple[str, ...] = setting((), "further stages, each ENGINE:SWEEPS[,NAME=VALUE...]")
    minutes: float | None = setting(None, "stop behind the sweep that ends later", gt=0)
    chi_squared: float | None = setting(1.0, "stop at so small a 4 mean (A - X)^2; 1 is photon noise", gt=0)
    plateau: float | None = setting(None, "end a stage whose loss fell by less than this share in 5 sweeps", gt=0, lt=1)
    start: str | None = setting(
        None, "result of this scan, an engine's or a network's, to begin from; null: an object of ones"
    )
    probe: Literal["auto", "start", "file", "disk"] = setting(
        "auto", "to begin from: that of --start, the file's, a disk; auto: the first of these that there is"
    )
    radius: float | None = setting(None, "of a disk to start from, in pixels; null: 0.22 N", gt=0)
    defocus: float | None = setting(None, "of such a disk: d of exp(-i pi d |q|^2); null: 60 (N/64)^2")
    modes: int | None = setting(None, "incoherent modes of the probe; null: as many as it has", ge=1, le=16)
    probe_from: int | None = setting(2, "sweep, counted from 0, at which the probe begins to move; null: never", ge=0)
    keep_probe: bool = setting(False, "neither scale nor move the file's probe")
    positions: int | None = setting(None, "sweep behind which positions begin to be refined; null: never", ge=0)
    seed: int = setting(0, "of the order of patterns", ge=0)

    def cross_checks(self) -> Iterator[str]:
        if self.keep_probe and self.probe in ("start", "disk"):
            yield f"{self.section}.keep_probe: expected the file's probe, got probe = {self.probe}"
        if self.probe == "start" and self.start is None:
            yield f"{self.section}.probe = 'start': expected {self.section}.start, a result to take it from"
        try:
            _ = self.stages
        except ValueError as error:
            yield f"{self.section}.{error}"

    @property
    def stages(self) -> tuple[Stage, ...]:
        """In order."""
        own = {name: getattr(self, name) for name in OWN if getattr(self, name) is not None}
        return (Stage(self.engine, self.sweeps, own), *map(self._further, self.then))

    def _further(self, text: str) -> Stage:
        try:
            return Stage.parse(text)
        except ValueError as error:
            raise ValueError(f"then: {error}") from None
