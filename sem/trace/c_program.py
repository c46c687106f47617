"""The trace that the C program nanoBragg prints, as it is printed, brought to this package's names, units and steps.

Its lines are ``TRACE_C: name value ...``, without an equals sign, of the first step of each kind, and in some versions
``TRACE_C_PHI phi_tic=3 phi_deg=0.03 k_frac=... F_latt=...`` for each spindle angle. All else that it prints is passed
over.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

from sem.trace.record import Entry, Trace

PROGRAM = "nanoBragg"
LINE, PHI_LINE = re.compile(r"TRACE_C:\s+(\w+)\s+(.+)"), re.compile(r"TRACE_C_PHI:?\s+(.+)")
UNIT_SLIPS = {"scattering_vec_A_inv": 1e-10}
"""Quantities whose printed unit is not the one that their name says, and the factor that makes it so."""
COMPONENTS = {f"{axis}_{kind}": (f"hkl_{kind}", at) for kind in ("frac", "rounded") for at, axis in enumerate("hkl")}
"""Names of single components, the vector of this package that has them, and where."""
OF_THE_LAST_LAYER = ("capture_fraction",)
"""Quantities that it prints once, with the value of the sensor's last layer."""
_STEP = re.compile(r"^(?P<name>[^\[]+)\[(?P<parts>.+)\]$")


def is_c_output(lines: Iterable[str]) -> bool:
    """Whether some line is one of that program's trace."""
    return any(LINE.match(line) or PHI_LINE.match(line) for line in lines)


def parse_c_trace(lines: Iterable[str]) -> Trace:
    """The quantities in that program's output; those of spindle steps after the first as ``name[phi 3]``.

    Example:
        >>> trace = parse_c_trace(["wave=1e-10", "TRACE_C: F_cell 29", "TRACE_C_PHI phi_tic=1 phi_deg=0.1 F_cell=28"])
        >>> [tuple(entry) for entry in trace.entries]
        [('F_cell', (29.0,)), ('phi_deg[phi 1]', (0.1,)), ('F_cell[phi 1]', (28.0,))]
    """
    trace = Trace({"program": PROGRAM})
    turns: Counter[str] = Counter()
    for line in lines:
        plain, by_phi = LINE.match(line), PHI_LINE.match(line)
        if plain is not None:
            _add(trace, plain[1], plain[2].split())
        elif by_phi is not None and "=" in by_phi[1]:
            pairs = dict(word.split("=", 1) for word in by_phi[1].split() if "=" in word)
            step = int(pairs.pop("phi_tic", "0"))
            for name, value in pairs.items():
                _add(trace, f"{name}[phi {step}]", [value])
        elif by_phi is not None:
            name, *values = by_phi[1].split()
            _add(trace, f"{name}[phi {turns[name]}]", values)
            turns[name] += 1
    return _first_steps_bare(trace)


def _add(trace: Trace, name: str, words: list[str]) -> None:
    factor = UNIT_SLIPS.get(name.partition("[")[0], 1.0)
    values = []
    for word in words:
        try:
            values.append(factor * float(word))
        except ValueError:
            break
    if values:
        trace.entries.append(Entry(name, tuple(values)))


def _first_steps_bare(trace: Trace) -> Trace:
    """Of a quantity that is printed for the first step alone and again for each, the first step once."""
    bare = {entry.name for entry in trace.entries}
    entries = []
    for name, values in trace.entries:
        first = name.removesuffix("[phi 0]")
        if first == name or first not in bare:
            entries.append(Entry(first, values))
    return Trace(trace.header, entries)


def aligned(left: Trace, right: Trace) -> tuple[Trace, Trace]:
    """Both traces under names that fit: where one is that program's, the other loses the steps that are the first.

    ``hkl_frac[subpixel 0, phi 0]`` becomes ``hkl_frac``, and ``hkl_frac[subpixel 0, phi 2]`` becomes
    ``hkl_frac[phi 2]``; components that only that program has names for are taken out of their vectors.
    """
    ours, theirs = (_printed_by_c(trace) for trace in (left, right))
    if ours == theirs:
        return left, right
    return (left, _renamed(right, left)) if ours else (_renamed(left, right), right)


def _printed_by_c(trace: Trace) -> bool:
    return trace.header.get("program") == PROGRAM


def _renamed(trace: Trace, other: Trace) -> Trace:
    wanted = {entry.name for entry in other.entries}
    entries = []
    for entry in _of_the_last_layer(trace.entries):
        name, step = _without_first_steps(entry.name)
        entries.append(Entry(name + step, entry.values))
        entries += [
            Entry(part + step, entry.values[at : at + 1])
            for part, (vector, at) in COMPONENTS.items()
            if vector == name and part + step in wanted
        ]
    return Trace(trace.header, entries)


def _of_the_last_layer(entries: Sequence[Entry]) -> Iterator[Entry]:
    """``entries``, where those of :data:`OF_THE_LAST_LAYER` are left out of other layers and lose the layer's name."""
    layers = [int(match[1]) for entry in entries if (match := re.search(r"\[layer (\d+)", entry.name))]
    last = max(layers, default=0)
    for entry in entries:
        name, inside, parts = entry.name.partition("[")
        if not last or name not in OF_THE_LAST_LAYER:
            yield entry
        elif parts.startswith(f"layer {last}"):
            rest = parts.removeprefix(f"layer {last}").removeprefix(", ")
            yield Entry(name if rest == "]" else f"{name}{inside}{rest}", entry.values)


def _without_first_steps(name: str) -> tuple[str, str]:
    match = _STEP.match(name)
    if match is None:
        return name, ""
    later = [part for part in match["parts"].split(", ") if not part.endswith(" 0")]
    return match["name"], f"[{', '.join(later)}]" if later else ""
