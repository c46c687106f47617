"""The calls whose results result_bits.py compares: every operator at even and odd sizes, rows whole and spoilt."""

from __future__ import annotations

import math
import warnings
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sem import ops

WIDTHS = (1, 33, 64, 256, 1024)
ROWS = (0, 1, 13, 1000)
MOST_ENTRIES = 2**18
"""Of a wave: 1000 rows of 1024 would take minutes."""

Problem = dict[str, Tensor]


@dataclass(frozen=True)
class Case:
    """An operator's call on named tensors: all of them get gradients, then the first one alone."""

    name: str
    call: Callable[[Problem], Any]
    inputs: Problem
    fixed: tuple[str, ...] = field(default=())
    """Names of inputs that get no gradient."""


class Draw:
    """Random tensors that depend on the case's name alone."""

    def __init__(self, name: str) -> None:
        self._generator = np.random.default_rng(zlib.crc32(name.encode()))

    def normal(self, *shape: int) -> Tensor:
        return torch.from_numpy(self._generator.standard_normal(math.prod(shape), dtype=np.float32)).reshape(shape)

    def wave(self, *shape: int) -> Tensor:
        return torch.view_as_complex(self.normal(*shape, 2))

    def uniform(self, low: float, high: float, *shape: int) -> Tensor:
        values = low + (high - low) * self._generator.random(math.prod(shape), dtype=np.float32)
        return torch.from_numpy(values).reshape(shape)

    def integers(self, high: int, *shape: int) -> list[Any]:
        return self._generator.integers(high, size=shape).tolist()


def cases() -> Iterator[Case]:
    for width in WIDTHS:
        for rows in ROWS:
            if rows * width <= MOST_ENTRIES:
                yield from graph_cases(rows, width)
                yield from phase_cases(rows, width)
                yield from token_cases(rows, width)
    yield from spoilt_cases()
    yield from solve_cases()
    yield from recurrent_cases()
    yield from convolution_cases()
    yield from diffraction_cases()


def graph(nodes: int) -> ops.Topology:
    """A ring of next and next but one neighbours, and random chords."""
    draw = Draw(f"graph of {nodes}")
    ring = [(i, (i + distance) % nodes) for distance in (1, 2) for i in range(nodes)]
    pairs = {(min(pair), max(pair)) for pair in ring + draw.integers(nodes, nodes, 2) if pair[0] != pair[1]}
    return ops.Topology(nodes, sorted(pairs))


def edge_weights(draw: Draw, topology: ops.Topology) -> Tensor:
    weight = draw.uniform(0.1, 1.5, topology.num_edges)
    weight[7::8] = 0
    return weight


def graph_cases(rows: int, width: int, spoil: Callable[[Tensor], Tensor] = lambda x: x, note: str = "") -> Any:
    topology = graph(width)
    size = f"[{rows}, {width}]{note}"
    fixed = () if topology.num_edges else ("half_dt",)  # the first version recorded left that gradient unset
    for kind in ("real", "complex"):
        draw = Draw(f"graph operators {kind} {size}")
        x = spoil((draw.wave if kind == "complex" else draw.normal)(rows, width))
        inputs = {"x": x, "edge_weight": edge_weights(draw, topology)}
        yield Case(
            f"laplacian_matvec {kind} {size}",
            lambda t: ops.laplacian_matvec(t["x"], t["edge_weight"], topology),
            inputs,
        )
        for coefficients in ((1.0, 0.5, 0.0), (1.5, 0.25, 0.1)):
            yield Case(
                f"laplacian_cg {kind} {coefficients} {size}",
                lambda t, c=coefficients: ops.laplacian_cg(t["x"], t["edge_weight"], topology, *c, return_info=True),
                inputs,
            )
    for half_dt, tol, max_iter in ((0.05, 1e-5, 50), (2.0, 1e-6, 50), (2.0, 1e-6, 3)):
        yield Case(
            f"cayley {half_dt}, {tol}, {max_iter} {size}",
            lambda t, tol=tol, max_iter=max_iter: ops.cayley(
                t["x"], t["edge_weight"], topology, t["half_dt"], tol, max_iter, return_info=True
            ),
            inputs | {"half_dt": torch.tensor(half_dt)},
            fixed,
        )
    extra = {"kerr": 0.1 * draw.normal(width), "strength": torch.tensor(0.7), "half_dt": torch.tensor(0.25)}
    for rule in ("score", "density_ratio"):
        yield Case(
            f"soliton_step {rule} {size}",
            lambda t, rule=rule: ops.soliton_step(
                t["x"], t["kerr"], t["strength"], t["edge_weight"], topology, t["half_dt"], rule=rule, return_info=True
            ),
            inputs | extra,
            fixed,
        )


def phase_cases(rows: int, width: int, spoil: Callable[[Tensor], Tensor] = lambda x: x, note: str = "") -> Any:
    size = f"[{rows}, {width}]{note}"
    draw = Draw(f"pit {size}")
    psi = spoil(draw.wave(rows, width) + 0.7)
    extra = {"kerr": 0.1 * draw.normal(width), "reference_rms": draw.uniform(0.5, 1.5, rows)}
    inputs = {"psi": psi, "strength": torch.tensor(0.7)}
    for rule in ("score", "density_ratio"):
        for bins, names in ((32, ()), (32, ("kerr",)), (32, ("reference_rms",)), (12, ("kerr", "reference_rms"))):
            yield Case(
                f"pit {rule} {bins} {' '.join(names)} {size}",
                lambda t, bins=bins, rule=rule: ops.pit(
                    t["psi"], t.get("reference_rms"), t["strength"], bins, rule, kerr=t.get("kerr")
                ),
                inputs | {name: extra[name] for name in names},
            )


def token_cases(rows: int, width: int, spoil: Callable[[Tensor], Tensor] = lambda x: x, note: str = "") -> Any:
    size = f"[{rows}, {width}]{note}"
    draw = Draw(f"token operators {size}")
    z = spoil(draw.wave(rows, width))
    z[..., 1::3] = 0
    for eps in (1e-6, 0.0):
        yield Case(
            f"complex_rms_norm {eps} {size}",
            lambda t, eps=eps: ops.complex_rms_norm(t["z"], t["gamma"], eps),
            {"z": z, "gamma": draw.normal(width)},
        )
    block = next(b for b in (8, 3, 1) if width % b == 0)
    yield Case(
        f"gated_rotation {size}",
        lambda t: ops.gated_rotation(t["x"], t["logits"], t["blocks"]),
        {
            "x": spoil(draw.wave(rows, width)),
            "logits": draw.normal(rows, width),
            "blocks": draw.wave(width // block, block, block),
        },
    )
    psi, real = spoil(draw.wave(rows, width)), draw.normal(rows, width)
    yield Case(f"wave_gate {size}", lambda t: ops.wave_gate(t["psi"], t["logits"]), {"psi": psi, "logits": 5 * real})
    yield Case(
        f"potential_step {size}",
        lambda t: ops.potential_step(t["psi"], t["potential"], t["kerr"]),
        {"psi": psi, "potential": 5 * real, "kerr": draw.normal(width)},
    )
    if width >= 3:
        given = {"psi": psi, "potential": 5 * real, "kerr": draw.normal(width), "weight": draw.normal(width).abs()}
        yield Case(
            f"ring_echo {size}",
            lambda t: ops.ring_echo(t["psi"], t["potential"], t["kerr"], t["weight"], 0.7),
            given,
        )


def spoilt_cases() -> Iterator[Case]:
    """A row of zeros, and one with NaN and one with Inf."""

    def spoil(x: Tensor) -> Tensor:
        x[3], x[5, 1], x[12, 0] = 0, math.nan, math.inf
        return x

    for make in (graph_cases, phase_cases, token_cases):
        yield from make(13, 33, spoil, " with zeros, NaN, Inf")


def solve_cases() -> Iterator[Case]:
    def solve(t: Problem) -> Any:
        def apply(v: Tensor) -> Tensor:
            return v @ (t["matrix"] @ t["matrix"].mT + torch.eye(len(t["matrix"])).to(v.dtype))

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return ops.cg_solve(apply, t["b"], rtol=1e-6)

    for rows in (0, 1, 13):
        for width in (1, 33):
            draw = Draw(f"cg_solve {rows} {width}")
            yield Case(
                f"cg_solve [{rows}, {width}]",
                solve,
                {"b": draw.normal(rows, width), "matrix": draw.normal(width, width) / width**0.5},
            )


def recurrent_cases() -> Iterator[Case]:
    for batch, steps, groups, states, width in (
        (1, 1, 1, 1, 1),
        (0, 5, 3, 2, 4),
        (2, 0, 3, 2, 4),
        (3, 67, 3, 2, 11),
        (1, 1000, 4, 16, 8),
        (2, 200, 2, 33, 5),
        (13, 130, 4, 16, 16),
    ):
        draw = Draw(f"recurrent {batch} {steps} {groups} {states} {width}")
        channels = groups * states
        shared = {
            "dt_mag": draw.uniform(1e-3, 0.3, batch, steps, groups),
            "dt_phase": draw.uniform(1e-3, 0.3, batch, steps, groups),
            "decay": draw.uniform(0.1, 8, channels),
            "frequency": draw.uniform(-math.pi, math.pi, channels),
        }
        state = {"initial_state": draw.wave(batch, channels)}
        for more in ({}, state):
            note = " initial_state" if more else ""
            yield Case(
                f"scan [{batch}, {steps}, {channels}] of {groups}{note}",
                lambda t: ops.scan(
                    t["x"], t["dt_mag"], t["dt_phase"], t["decay"], t["frequency"], t.get("initial_state")
                ),
                {"x": draw.wave(batch, steps, channels), **shared, **more},
            )
            yield Case(
                f"state_space [{batch}, {steps}, {groups * width}] of {groups}, {states}{note}",
                lambda t: ops.state_space(
                    t["x"],
                    t["dt_mag"],
                    t["dt_phase"],
                    t["into"],
                    t["out_of"],
                    t["decay"],
                    t["frequency"],
                    t.get("initial_state"),
                ),
                {
                    "x": draw.wave(batch, steps, groups * width),
                    "into": draw.wave(groups, states, width),
                    "out_of": draw.wave(groups, width, states),
                    **shared,
                    **more,
                },
            )


def convolution_cases() -> Iterator[Case]:
    for batch, steps, channels, taps in (
        (1, 1, 1, 1),
        (0, 5, 6, 4),
        (2, 0, 6, 4),
        (2, 70, 33, 4),
        (1, 1000, 64, 4),
        (3, 65, 256, 4),
        (13, 2, 1024, 2),
        (2, 20, 17, 9),
    ):
        draw = Draw(f"causal_conv {batch} {steps} {channels} {taps}")
        inputs = {
            "x": draw.wave(batch, steps, channels),
            "taps": draw.wave(taps, channels) / taps**0.5,
            "bias": draw.wave(channels),
        }
        extra = {"theta": draw.normal(channels), "history": draw.wave(batch, taps - 1, channels)}
        for names in ((), ("theta",), ("history",), ("theta", "history")):
            yield Case(
                f"causal_conv [{batch}, {steps}, {channels}] {taps} taps {' '.join(names)}",
                lambda t: ops.causal_conv(t["x"], t["taps"], t["bias"], t.get("theta"), t.get("history")),
                inputs | {name: extra[name] for name in names},
            )


@dataclass(frozen=True)
class Image:
    """A diffraction problem near the beam on a tilted detector; the default has no layers, no table, no curvature."""

    slow: int = 19
    fast: int = 37
    sources: int = 2
    positions: int = 2
    mosaics: int = 2
    cells: tuple[float, float, float] = (4.0, 5.0, 3.0)
    shape: str = "square"
    polarised: bool = True
    table: int = 0
    tricubic: bool = False
    carry_over: bool = False
    curved: bool = False
    masked: bool = False
    detector: dict[str, Any] = field(default_factory=dict)

    def inputs(self) -> Problem:
        axes = turned(np.array([[0.0, 0, 1], [0, -1, 0], [1, 0, 0]]), 0.06, -0.03, 0.02)
        pixel = PIXEL
        origin = np.array([0.1, 0, 0]) - axes[0] * 0.4 * self.fast * pixel - axes[1] * 0.6 * self.slow * pixel
        offsets = np.linspace(-1, 1, self.sources) if self.sources > 1 else np.zeros(1)
        cell = 1e-10 * np.array([[42.0, 0, 3], [4, 51, 0], [0, 5, 60]])
        values = {
            "default": np.array(30.0 if self.table else 100.0),  # the first: no gradient of the geometry without others
            "origin": origin,
            "fast": axes[0],
            "slow": axes[1],
            "normal": axes[2],
            "close_distance": origin @ axes[2],
            "direction": np.stack([-0.2 + 0 * offsets, 0.003 * offsets, -0.002 * offsets**2], 1),
            "wavelength": 1.1e-10 * (1 + 0.01 * offsets),
            "weight": 1 + 0.3 * offsets,
            "orientation": np.array(
                [
                    [turned(cell, 0.3 + 0.02 * p, 0.1 - 0.01 * m, 0.2 + 0.013 * m * p) for m in range(self.mosaics)]
                    for p in range(self.positions)
                ]
            ),
            "cells": np.array(self.cells),
            "fudge": np.array(1.3),
            "scale": np.array(1.5),
            "background": np.array(40.0),
        }
        if self.shape == "gauss":
            values["reciprocal_metric"] = np.linalg.inv(cell @ cell.T)
        if self.polarised:
            values |= {"axis": np.array([0.05, 0.02, 1.0]), "kahn": np.array(0.7)}
        if self.curved:
            values |= {"curvature.distance": np.array(0.1), "curvature.beam": np.array([1.0, 0.01, -0.02])}
        tensors = {name: torch.tensor(value) for name, value in values.items()}
        if self.table:
            tensors["table"] = Draw("table").uniform(10, 60, self.table, self.table + 1, self.table + 2).double()
        return tensors

    def call(self, t: Problem, mode: str) -> Tensor:
        curvature = ops.Curvature(t["curvature.distance"], t["curvature.beam"]) if self.curved else None
        frame = ops.DetectorFrame(
            t["origin"],
            t["fast"],
            t["slow"],
            t["normal"],
            PIXEL,
            (self.slow, self.fast),
            t["close_distance"],
            curvature=curvature,
            **self.detector,
        )
        region = None
        if self.masked:
            mask = Draw("mask").uniform(0, 1, self.slow, self.fast) < 0.7
            region = ops.Region((2, self.fast - 3, 1, self.slow - 2), mask)
        return ops.diffraction(
            frame,
            ops.Sources(t["direction"], t["wavelength"], t["weight"]),
            ops.Domains(
                t["orientation"], t["cells"], self.shape, t["fudge"], t.get("reciprocal_metric"), self.carry_over
            ),
            ops.StructureFactors(t["default"], t.get("table"), (-(self.table // 2),) * 3, self.tricubic),
            ops.Polarisation(t["axis"], t["kahn"]) if self.polarised else None,
            region,
            scale=t["scale"],
            background=t["background"],
            d_min=2.6e-10,
            mode=mode,
        )


PIXEL = 4e-4
THICK = {"oversample": 2, "layers": 3, "layer_step": 2e-4, "attenuation": 2e3}
IMAGES = {
    **{shape: Image(shape=shape) for shape in ("square", "round", "gauss", "tophat")},
    "one cell thin": Image(sources=1, cells=(1.0, 6.0, 1.0), polarised=False),
    "many cells": Image(sources=1, positions=1, mosaics=1, cells=(50.0, 60.0, 70.0)),
    "thick": Image(9, 18, detector=THICK),
    "curved": Image(9, 18, curved=True),
    "points": Image(polarised=False, detector={"point_pixel": True}),
    "table": Image(table=25),
    "small table": Image(shape="gauss", table=3),
    "tricubic": Image(table=65, tricubic=True),
    "tricubic and outside": Image(table=11, tricubic=True),
    "carry-over": Image(positions=3, carry_over=True),
    "region": Image(masked=True),
    "one pixel": Image(1, 1, table=25),
    "no pixels": Image(0, 5),
    "large": Image(100, 130, shape="round"),
}


def diffraction_cases() -> Iterator[Case]:
    for name, image in IMAGES.items():
        for mode in ("nanobragg", "exact"):
            call = lambda t, image=image, mode=mode: image.call(t, mode)  # noqa: E731
            yield Case(f"diffraction {name}, {mode}", call, image.inputs())


def turned(vectors: np.ndarray, x: float, y: float, z: float) -> np.ndarray:
    """Rows turned about the axes x, y and z in turn."""
    for axis, angle in enumerate((x, y, z)):
        i, j = (axis + 1) % 3, (axis + 2) % 3
        rotation = np.eye(3)
        rotation[[i, j], [i, j]] = math.cos(angle)
        rotation[i, j], rotation[j, i] = -math.sin(angle), math.sin(angle)
        vectors = vectors @ rotation.T
    return vectors
