"""Random command lines of the C program nanoBragg, read by this package and, with --binary, by a copy of that program.

    python tools/c_command_lines.py --lines 200 --seed 0
    python tools/c_command_lines.py --lines 200 --binary ./nanoBragg --evidence differences
    python tools/c_command_lines.py --only 17                 # that command line alone, printed

A line has a small crystal and detector, then some of all flags that matter to the image, in any order, redundant ones
too, with values drawn for each. It is made of the seed and its number alone. Without --binary a line may give a finite
image or one sentence that says what is wrong with it; all else is a finding. With --binary so is an image that differs
by more than 2e-5 of the maximum, and --evidence keeps what both programs made of it. Random orientations and mosaic
domains differ by design: their flags are drawn without --binary alone.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import os
import random
import shlex
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import torch

from sem.diffraction import experiment_from, images
from sem.diffraction.flags import COVERED, FLAGS, MORE, OUTPUT, Flag
from sem.trace.against_c import TOLERANCE, against_c, write_evidence

BASE = "-cell 60 70 80 90 90 90 -default_F 100 -lambda 1.5 -N 4 -detpixels 24 -distance 40"
MOST_FLAGS = 8
RANDOM_FLAGS = {"-misset_seed", "-mosaic", "-mosaic_domains", "-mosaic_seed"}
"""Flags of what is drawn from random numbers, which are not the C program's."""

Draw = Callable[[random.Random], str]


def number(low: float, high: float) -> Draw:
    return lambda draw: f"{draw.uniform(low, high):.4g}"


def whole(low: int, high: int) -> Draw:
    return lambda draw: str(draw.randint(low, high))


def one_of(*values: str) -> Draw:
    return lambda draw: draw.choice(values)


def cell(draw: random.Random) -> str:
    lengths = [f"{draw.uniform(30, 90):.4g}" for _ in range(3)]
    return " ".join([*lengths, *draw.choice([["90"] * 3, [f"{draw.uniform(80, 100):.4g}" for _ in range(3)]])])


def vector(draw: random.Random) -> str:
    """One of the axes, a direction near one of them, either of any length."""
    axis = [0.0, 0.0, 0.0]
    axis[draw.randrange(3)] = draw.choice([-1.0, 1.0])
    if draw.random() < 0.5:
        axis = [part + draw.uniform(-0.1, 0.1) for part in axis]
    factor = draw.choice([1.0, 1.0, 2.0])
    return " ".join(f"{factor * part:.6g}" for part in axis)


DRAWS: dict[str, Draw] = {
    "-cell": cell,
    "-mat": one_of("A.mat"),
    "-misset": lambda draw: " ".join(f"{draw.uniform(-90, 90):.4g}" for _ in range(3)),
    "-misset_seed": whole(1, 99),
    "-N": whole(1, 6),
    "-Na": whole(0, 6),
    "-Nb": whole(0, 6),
    "-Nc": whole(0, 6),
    "-samplesize": number(5e-6, 4e-5),
    "-sample_thick": number(5e-6, 4e-5),
    "-sample_width": number(5e-6, 4e-5),
    "-sample_height": number(5e-6, 4e-5),
    "-fudge": number(0.5, 2),
    "-mosaic": number(0, 1),
    "-mosaic_domains": whole(1, 4),
    "-mosaic_seed": whole(1, 99),
    "-hkl": one_of("f.hkl"),
    "-default_F": number(1, 200),
    "-detpixels": whole(16, 32),
    "-detpixels_f": whole(16, 32),
    "-detpixels_s": whole(16, 32),
    "-detsize": number(1.6, 3.2),
    "-detsize_f": number(1.6, 3.2),
    "-detsize_s": number(1.6, 3.2),
    "-pixel": number(0.07, 0.2),
    "-distance": number(30, 120),
    "-close_distance": number(30, 120),
    "-Xbeam": number(0, 3),
    "-Ybeam": number(0, 3),
    "-Xclose": number(0, 3),
    "-Yclose": number(0, 3),
    "-ORGX": number(0, 30),
    "-ORGY": number(0, 30),
    "-detector_rotx": number(-20, 20),
    "-detector_roty": number(-20, 20),
    "-detector_rotz": number(-20, 20),
    "-twotheta": number(-30, 30),
    "-pivot": one_of("beam", "sample"),
    "-pix0_vector": number(-1, 1),
    "-pix0_vector_mm": number(-9, 9),
    "-detector_abs": one_of("inf", "0", "100", "300"),
    "-detector_thick": number(50, 300),
    "-detector_thicksteps": whole(1, 3),
    "-mask": one_of("mask.img"),
    "-img": one_of("input.img"),
    "-lambda": number(0.8, 2),
    "-energy": number(7000, 13000),
    "-dispersion": number(0, 3),
    "-dispsteps": whole(1, 4),
    "-divergence": number(0, 5),
    "-hdivrange": number(0, 5),
    "-vdivrange": number(0, 5),
    "-hdivstep": number(0.5, 3),
    "-vdivstep": number(0.5, 3),
    "-divsteps": whole(1, 4),
    "-hdivsteps": whole(1, 4),
    "-vdivsteps": whole(1, 4),
    "-sourcefile": one_of("sources.txt"),
    "-polar": number(-1, 1),
    "-fluence": number(1e20, 1e24),
    "-flux": number(1e9, 1e12),
    "-exposure": number(0.1, 2),
    "-beamsize": number(1e-5, 0.1),
    "-water": number(0, 50),
    "-phi": one_of("0", "-1", "5", "0.5"),
    "-osc": one_of("1", "2", "0.4"),
    "-phistep": one_of("0.1", "0.25", "0.5"),
    "-phisteps": whole(1, 5),
    "-dmin": number(1, 8),
    "-oversample": whole(1, 3),
    "-roi": one_of("2 13 3 12", "0 15 0 15"),
}


def drawn_flags(*, random_numbers: bool) -> list[Flag]:
    """The flags that matter to the image."""
    kept = [flag for flag in FLAGS if flag.status == COVERED and flag.group not in (OUTPUT, MORE)]
    return [flag for flag in kept if random_numbers or flag.name not in RANDOM_FLAGS]


def values_of(flag: Flag, draw: random.Random) -> list[str]:
    """Values for one flag."""
    if not flag.count:
        return []
    if flag.sets[0].startswith("vector_"):
        return vector(draw).split()
    words: list[str] = []
    while len(words) < flag.count:
        words += DRAWS[flag.name](draw).split()
    return words


def command_line(seed: int, index: int, *, random_numbers: bool = True) -> list[str]:
    """Command line ``index`` of ``seed``: the flags that every line has, and drawn ones before and behind them."""
    draw = random.Random(f"{seed} {index}")
    flags = drawn_flags(random_numbers=random_numbers)
    chosen = [draw.choice(flags) for _ in range(draw.randint(1, MOST_FLAGS))]
    chosen += draw.sample(chosen, draw.randint(0, min(2, len(chosen))))  # again, with other values
    given = [[draw.choice(flag.names), *values_of(flag, draw)] for flag in chosen]
    draw.shuffle(given)
    before = draw.randint(0, len(given))
    words = [*given[:before], shlex.split(BASE), *given[before:]]
    return [word for flag in words for word in flag]


def write_inputs(folder: Path) -> None:
    """The files that the command lines name."""
    draw = random.Random(0)
    rows = [f"{h} {k} {m} {draw.uniform(1, 200):.5g}" for h, k, m in itertools.product(range(-9, 10), repeat=3)]
    (folder / "f.hkl").write_text("\n".join(rows) + "\n")
    (folder / "A.mat").write_text("0.021 0.002 -0.001\n-0.003 0.018 0.002\n0.001 -0.002 0.016\n")
    (folder / "sources.txt").write_text("-10 0 0 1 1.5e-10\n-10 0.01 0 1 1.52e-10\n-10 0 -0.02 1 1.49e-10\n")
    counts = torch.ones(24, 24, dtype=torch.int32)
    header = {
        "PIXEL_SIZE": "0.1",
        "DISTANCE": "60",
        "WAVELENGTH": "1.4",
        "BEAM_CENTER_X": "1.1",
        "BEAM_CENTER_Y": "1.3",
    }
    images.write_smv(folder / "input.img", counts, header)
    counts[4:9, 10:20] = 0
    images.write_smv(folder / "mask.img", counts)


def finding(line: Sequence[str], program: str | None, evidence: Path | None) -> str | None:
    """What is wrong with this package's answer to ``line``, None if nothing; run where the inputs are."""
    try:
        if program is None:
            with torch.no_grad():
                image = experiment_from(line).simulator()
            return None if bool(image.isfinite().all()) else "an image with pixels that are not finite"
        experiment_from(line)
    except ValueError as error:
        return None if "\n" not in str(error) and ":" in str(error) else f"not a sentence: {error}"
    with tempfile.TemporaryDirectory() as folder:
        result = against_c(program, line, folder)
        if result.agrees():
            return None
        if evidence is not None:
            write_evidence(result, folder)
            shutil.copytree(folder, evidence, dirs_exist_ok=True)
    return f"differs by {result.image.relative_difference:.3g} of the maximum"


@contextlib.contextmanager
def current_folder(folder: str) -> Iterator[None]:
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


def findings(options: argparse.Namespace) -> Iterator[tuple[int, list[str], str]]:
    numbers = range(options.lines) if options.only is None else [options.only]
    program = None if options.binary is None else str(Path(options.binary).absolute())
    evidence = None if options.evidence is None else Path(options.evidence).absolute()
    with tempfile.TemporaryDirectory() as folder, current_folder(folder):
        write_inputs(Path(folder))
        for index in numbers:
            line = command_line(options.seed, index, random_numbers=program is None)
            if options.only is not None:
                print(shlex.join(line))
            try:
                found = finding(line, program, evidence and evidence / str(index))
            except Exception as error:  # whatever it is, it is a finding
                found = f"{type(error).__name__}: {error}"
            if found is not None:
                yield index, line, found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--lines", type=int, default=200, help="how many command lines (default: 200)")
    parser.add_argument("--seed", type=int, default=0, help="which ones (default: 0)")
    parser.add_argument("--only", type=int, metavar="N", help="command line N alone")
    parser.add_argument("--binary", metavar="PROGRAM", help="the C program to compare with")
    parser.add_argument("--evidence", metavar="FOLDER", help="keep what both made of lines that differ")
    parser.add_argument("--most", type=int, default=20, help="findings after which to end (default: 20)")
    options = parser.parse_args()
    count = 0
    for index, line, found in findings(options):
        count += 1
        print(f"{index}: {found}\n    {shlex.join(line)}")
        if count == options.most:
            break
    against = "" if options.binary is None else f", against {options.binary} (tolerance {TOLERANCE:g})"
    print(f"{count} findings{against}")
    return 1 if count else 0


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    sys.exit(main())
