"""Traces from files: this package's own, the C program's output, and other programs' lines ``name = value ...``."""

from __future__ import annotations

import re
from pathlib import Path

from sem.trace.c_program import is_c_output, parse_c_trace
from sem.trace.record import FIRST_LINE, Entry, Trace

# Programs that print traces put a word and a colon before the name: "TRACE: h = 1.5".
_LABEL = re.compile(r"\w+:\s+")


def read_trace(path: str | Path) -> Trace:
    """Read a trace of this package, what nanoBragg prints, or the lines ``name = value ...`` of another program.

    Of nanoBragg's output the lines of its trace are read (:mod:`sem.trace.c_program`). In another program's, a word and
    a colon may stand before the name; lines of another form, and what follows the numbers of a line (a unit), are
    passed over.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is not text, a line of a trace of this package is damaged, or no line has that form.
    """
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError:
        raise ValueError(f"{path}: expected a text file of lines 'name = value ...', got binary data") from None
    own = lines[:1] == [FIRST_LINE]
    if not own and is_c_output(lines):
        return parse_c_trace(lines)
    trace = Trace()
    for number, line in enumerate(lines, 1):
        if line.startswith("#"):
            name, colon, value = line[1:].partition(":")
            if own and colon:
                trace.header[name.strip()] = value.strip()
            continue
        entry = _entry(line, whole=own)
        if entry is not None:
            trace.entries.append(entry)
        elif own and line.strip():
            raise ValueError(f"{path}, line {number}: expected 'name = value ...' with numbers, got {line[:60]!r}")
    if not trace.entries:
        raise ValueError(f"{path}: expected lines 'name = value ...', found none")
    return trace


def _entry(line: str, whole: bool) -> Entry | None:
    """The line's numbers, up to the first word that is none; with ``whole`` there must not be such a word."""
    name, equals, numbers = line.partition("=")
    name = name.strip()
    label = _LABEL.match(name)
    name = name[label.end() :] if label else name
    if not equals or not name or name.startswith("#"):
        return None
    values = []
    for word in numbers.replace(",", " ").split():
        try:
            values.append(float(word))
        except ValueError:
            if whole:
                return None
            break
    return Entry(name, tuple(values)) if values else None
