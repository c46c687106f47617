"""``sem diffraction``: ``simulate`` an image with nanoBragg's own flags; what is done with its files and models."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from sem.command_line import Command, Parser, perform
from sem.commands import diffraction_files, diffraction_refine

if TYPE_CHECKING:
    from torch import Tensor

    from sem.diffraction.experiment import Experiment

AGAINST_C, EVIDENCE = "--against-c", "--evidence"
_AGAINST_C_USAGE = f"""\
       sem diffraction compare {AGAINST_C} PROGRAM [{EVIDENCE} FOLDER] FLAGS
                                        the same of PROGRAM's image and ours, with the flags of simulate;
                                        -trace_pixel SLOW FAST among them compares the traces of a pixel too"""
DIVERGED = 1


def simulate(arguments: Sequence[str]) -> int:
    """``sem diffraction simulate`` with nanoBragg's flags: prints what is simulated and writes the images that they ask
    for. ``-help`` and its other spellings list the flags and do nothing else.

    Raises:
        ValueError: flags that are unknown, do not fit each other, or name a file that does not hold what it should.
    """
    if {"-h", "-help", "--help"} & set(arguments):
        _print_flags()  # without torch, and so at once
        return 0
    import torch

    from sem.diffraction import images
    from sem.diffraction.experiment import experiment_from
    from sem.diffraction.outputs import write_outputs
    from sem.diffraction.smv_header import smv_header
    from sem.diffraction.summary import summary

    experiment = experiment_from(arguments)
    for note in experiment.notes:
        print(f"sem: {note}", file=sys.stderr)
    if experiment.show_config:
        _print_config(experiment)
        return 0
    for line in summary(experiment):
        print(line)
    panels = experiment.panels
    for simulator in panels:  # what cannot be written is said before the work, not after it
        detector = simulator.detector
        images.smv_header_bytes((detector.slow_pixels, detector.fast_pixels), smv_header(simulator))
    if experiment.trace_pixel is not None:
        _print_trace(experiment, experiment.trace_pixel)
    with torch.no_grad():
        scene = panels[0].scene()
        arrived = [
            panel.serial(spread=False) if experiment.reference else panel.photons(scene=scene) for panel in panels
        ]
        counted = [panel.spread(photons) for panel, photons in zip(panels, arrived, strict=True)]
    for line in write_outputs(experiment, arrived, counted):
        print(f"wrote {line}")
    _print_statistics(counted)
    return 0


def _print_statistics(panels: Sequence[Tensor]) -> None:
    import torch

    brightest = max(range(len(panels)), key=lambda number: float(panels[number].max()))
    image = panels[brightest]
    slow, fast = divmod(int(image.argmax()), image.shape[1])
    every = torch.cat([panel.flatten() for panel in panels]).double()
    where = f", panel {brightest}" if len(panels) > 1 else ""
    print(
        f"maximum {float(image.max()):g} at fast {fast}, slow {slow}{where}; mean {float(every.mean()):g}, "
        f"standard deviation {float(every.std(correction=0)):g}"
    )


def compare(arguments: Sequence[str]) -> int:
    """``sem diffraction compare`` of two images or, with ``--against-c``, of sem with the C program; then the other
    words are flags."""
    if AGAINST_C in arguments:
        return compare_with_c(arguments)
    return perform(("sem", "diffraction", "compare"), COMPARE, arguments)


def _compare(options: argparse.Namespace) -> int:
    from sem.diffraction import comparison, images
    from sem.files import write_text

    if options.peaks < 1:
        raise ValueError(f"--peaks: expected a whole number >= 1, got {options.peaks}")
    if not options.radius >= 0:
        raise ValueError(f"--radius: expected a number of pixels >= 0, got {options.radius:g}")
    (first, good), (second, also) = images.read_pixels(options.first), images.read_pixels(options.second)
    both = good & also if good.shape == also.shape else None  # other shapes are refused by what compares
    result = comparison.compare(first, second, peaks=options.peaks, radius=options.radius, good=both)
    _print_comparison(result, (options.first, options.second))
    if options.json is not None:
        document = {"images": [options.first, options.second], **result.to_mapping()}
        write_text(options.json, json.dumps(document, indent=2, allow_nan=False) + "\n")
    if options.plot is not None:
        first, second = (image.where(good & also, 0) for image in (first, second))
        comparison.plot_difference(first, second, options.plot, (options.first, options.second))
    return 0


def compare_with_c(arguments: Sequence[str]) -> int:
    """Run the C program and sem with the same flags, compare the images and, with ``-trace_pixel``, the traces. Status
    1 where they do not agree."""
    import contextlib
    import tempfile
    from pathlib import Path

    from sem.trace.against_c import against_c, write_evidence
    from sem.trace.report import verdict

    options, flags = _own_options(arguments)
    with contextlib.ExitStack() as stack:
        if EVIDENCE in options:
            folder = Path(options[EVIDENCE])
            folder.mkdir(parents=True, exist_ok=True)
        else:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        result = against_c(options[AGAINST_C], flags, folder)
        if EVIDENCE in options:
            for path in write_evidence(result, folder):
                print(f"wrote {path}")
    _print_comparison(result.image, (options[AGAINST_C], "sem"))
    if result.trace is not None:
        print(verdict(result.trace))
    elif "-trace_pixel" in flags:
        print("the program printed no trace")
    return 0 if result.agrees() else DIVERGED


def _own_options(arguments: Sequence[str]) -> tuple[dict[str, str], list[str]]:
    """The two options with two dashes and their values, and all else: flags with one dash."""
    options: dict[str, str] = {}
    flags, words = [], list(arguments)
    while words:
        word = words.pop(0)
        if word in (AGAINST_C, EVIDENCE):
            if not words or words[0].startswith("-"):
                raise ValueError(f"{word}: expected a {'program' if word == AGAINST_C else 'folder'}, got none")
            options[word] = words.pop(0)
        else:
            flags.append(word)
    return options, flags


def _print_trace(experiment: Experiment, pixel: tuple[int, int]) -> None:
    from sem.trace.diffraction import trace_diffraction

    trace = trace_diffraction(experiment.simulator, pixel, backend="reference" if experiment.reference else "native")
    for name, values in trace.entries:
        print(f"TRACE: {name} = {' '.join(map(repr, values))}")


def _add_compare_arguments(parser: Parser) -> None:
    kinds = "raw floats (square), SMV, PGM, .npy, CBF, EDF, TIFF or HDF5"
    parser.usage = "sem diffraction compare [OPTION ...] IMAGE1 IMAGE2\n" + _AGAINST_C_USAGE
    parser.add_argument("first", metavar="IMAGE1", help=f"the image to compare with: {kinds}")
    parser.add_argument("second", metavar="IMAGE2", help="the image to judge")
    parser.add_argument("--peaks", type=int, default=50, metavar="N", help="highest peaks to match (default: 50)")
    radius = "how far a matched peak may be, in pixels (default: 0.5)"
    parser.add_argument("--radius", type=float, default=0.5, metavar="PIXELS", help=radius)
    parser.add_argument("--json", metavar="FILE", help="write every figure to FILE")
    parser.add_argument("--plot", metavar="FILE", help="draw both images and their difference (needs matplotlib)")


def _print_comparison(result: object, names: tuple[str, str]) -> None:
    from rich.console import Console
    from rich.table import Table

    from sem.diffraction.comparison import PLATEAU, Comparison

    assert isinstance(result, Comparison)
    table = Table("", *names)
    table.add_row("maximum", *(f"{value:.9g}" for value in result.maximum))
    table.add_row(f"distinct values in the central {PLATEAU} x {PLATEAU}", *map(str, result.plateau))
    table.add_row("highest peaks", *map(str, result.peaks))
    table.add_row(f"matched within {result.radius:g} pixels", "", f"{result.matched} of {result.peaks[0]}")
    table.add_row("correlation", "", f"{result.correlation:.9f}")
    table.add_row("root mean squared difference", "", f"{result.rmse:.4g}")
    table.add_row("largest difference", "", f"{result.largest_difference:.4g}")
    table.add_row("  over the maximum", "", f"{result.relative_difference:.3g}")
    table.add_row("ratio of the sums", "", f"{result.sum_ratio:.9g}")
    if result.left_out:
        table.add_row("bad pixels left out", "", str(result.left_out))
    Console().print(table)


def _print_flags() -> None:
    from rich.console import Console
    from rich.table import Table

    from sem.diffraction.flags import COVERED, FLAGS

    table = Table("flag", "values", "unit", "", title="sem diffraction simulate", title_justify="left")
    for number, flag in enumerate(FLAGS):
        last = number + 1 == len(FLAGS) or FLAGS[number + 1].group != flag.group
        values = "" if not flag.count else f"{flag.count if flag.count > 1 else ''} {flag.kind[0] or 'text'}".strip()
        text = flag.help if flag.status == COVERED else f"{flag.status}: {flag.help}"
        table.add_row(" ".join(flag.names), values, flag.unit, text, end_section=last)
    Console().print(table)


def _print_config(experiment: Experiment) -> None:
    from rich.console import Console
    from rich.table import Table

    from sem.diffraction.description import describe

    table = Table(show_header=False)
    for group, rows in describe(experiment).items():
        for number, (name, value) in enumerate(rows):
            table.add_row(group if not number else "", name, value, end_section=number + 1 == len(rows))
    Console().print(table)


COMPARE = Command(
    help="correlation, differences and peaks of two images", add_arguments=_add_compare_arguments, run=_compare
)
COMMAND = Command(
    help="simulate X-ray diffraction images, compare, inspect and convert them, refine against them",
    subcommands={
        "simulate": Command(help="simulate X-ray diffraction images, with nanoBragg's flags", raw=simulate),
        "compare": Command(help=COMPARE.help, add_arguments=_add_compare_arguments, raw=compare),
        "inspect": diffraction_files.INSPECT,
        "convert": diffraction_files.CONVERT,
        "refine": diffraction_refine.REFINE,
    },
)
