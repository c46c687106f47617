"""A user's own C program and this package on one command line: both images, both traces, and how they compare."""

from __future__ import annotations

import hashlib
import json
import platform
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

import sem
from sem.diffraction import comparison, images
from sem.diffraction.experiment import Experiment, experiment_from
from sem.diffraction.flags import BY_NAME, MORE
from sem.files import write_text
from sem.trace.c_program import is_c_output
from sem.trace.comparison import Comparison as TraceComparison
from sem.trace.comparison import compare
from sem.trace.diffraction import trace_diffraction
from sem.trace.files import read_trace
from sem.trace.report import as_json, markdown

TOLERANCE = 2e-5
"""Largest difference over the maximum up to which two images agree."""
TRACE_TOLERANCE = 1e-6
C_LOG, C_IMAGE, OUR_IMAGE, C_TRACE, OUR_TRACE = "c.log", "c.bin", "sem.bin", "c_trace.txt", "sem_trace.txt"
_FILES = ("hkl_file", "matrix_file", "source_file", "mask_file", "image_file")
_CARRIED = ("-phi_carryover", "c-parity")


@dataclass(frozen=True)
class Result:
    """Both programs on one command line.

    Attributes:
        image: how the images compare, the C program's first.
        trace: how the traces of the pixel compare, None where none was asked for or the program printed none.
        commands: the two command lines, the C program's first.
        versions: of the C program (the digest of its file) and of what this package runs on.
    """

    image: comparison.Comparison
    trace: TraceComparison | None
    commands: tuple[list[str], list[str]]
    versions: dict[str, str]

    def agrees(self, tolerance: float = TOLERANCE) -> bool:
        """Whether the images differ by at most ``tolerance`` of the maximum and no traced value diverges."""
        diverges = self.trace is not None and self.trace.first_divergence is not None
        return self.image.relative_difference <= tolerance and not diverges


def against_c(program: str | Path, flags: Sequence[str], folder: str | Path) -> Result:
    """Run ``program`` and this package with ``flags`` and compare; images, logs and traces are left in ``folder``.

    The program runs in a folder of its own, since it leaves and finds files under names that are not on its command
    line; files that the flags name are looked for in the current one. Flags that only this package has are kept from
    it. A spindle angle of 0 is treated as the program treats it unless ``-phi_carryover`` says otherwise. With
    ``-trace_pixel`` among the flags the traces of that pixel are compared too.

    Args:
        program: the C program nanoBragg, or one that takes its flags.
        flags: the experiment, in nanoBragg's words.
        folder: where to leave the files; it has to be there.

    Raises:
        ValueError: flags that are wrong, a program that is not there, fails or writes no image of the detector's size.
    """
    folder = Path(folder).absolute()
    found = shutil.which(str(program))
    if found is None:
        raise ValueError(f"{program}: expected a program that can be run, got none")
    ours = list(flags) if "-phi_carryover" in flags else [*flags, *_CARRIED]
    experiment = experiment_from(ours)
    detector = experiment.simulator.detector
    theirs = [*_for_c(flags), "-floatfile", str(folder / C_IMAGE), "-nonoise", "-nopgm"]
    (folder / C_IMAGE).unlink(missing_ok=True)  # of a run before
    log = _run([str(Path(found).absolute()), *theirs])
    write_text(folder / C_LOG, log)
    shape = detector.slow_pixels, detector.fast_pixels
    if not (folder / C_IMAGE).is_file():
        raise ValueError(f"{program}: expected the image that -floatfile asks for, got none; it printed {_end(log)!r}")
    golden = images.read_float(folder / C_IMAGE, shape)
    with torch.no_grad():
        image = experiment.simulator.serial().float() if experiment.reference else experiment.simulator()
    images.write_float(folder / OUR_IMAGE, image)
    return Result(
        comparison.compare(golden, image),
        _traces(experiment, log, folder),
        ([str(program), *theirs], ["sem", "diffraction", "simulate", *ours]),
        {
            str(program): f"sha256 {hashlib.sha256(Path(found).read_bytes()).hexdigest()}",
            "sem": sem.__version__,
            "torch": str(torch.__version__),
            "python": platform.python_version(),
            "machine": f"{platform.system()} {platform.machine()}",
        },
    )


def write_evidence(result: Result, folder: str | Path) -> list[Path]:
    """Write ``summary.md``, ``metrics.json``, ``commands.txt``, ``versions.txt`` and the digests of all files there.

    ``SHA256SUMS`` has the form that ``sha256sum -c`` reads.
    """
    folder = Path(folder)
    commands = "\n".join(shlex.join(command) for command in result.commands) + "\n"
    versions = "".join(f"{name}: {version}\n" for name, version in result.versions.items())
    names = (C_TRACE, OUR_TRACE)
    metrics = {
        "agrees": result.agrees(),
        "tolerance": TOLERANCE,
        "image": result.image.to_mapping(),
        "trace": None if result.trace is None else as_json(result.trace, names),
    }
    write_text(folder / "commands.txt", commands)
    write_text(folder / "versions.txt", versions)
    write_text(folder / "metrics.json", json.dumps(metrics, indent=2, allow_nan=False) + "\n")
    write_text(folder / "summary.md", "\n".join(_summary(result, commands, versions, names)))
    files = sorted(path for path in folder.iterdir() if path.is_file() and path.name != "SHA256SUMS")
    sums = "".join(f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}\n" for path in files)
    write_text(folder / "SHA256SUMS", sums)
    return [*files, folder / "SHA256SUMS"]


def _summary(result: Result, commands: str, versions: str, names: tuple[str, str]) -> Iterator[str]:
    image = result.image
    yield "# The C program against this package\n"
    yield f"The two {'agree' if result.agrees() else 'differ'}.\n"
    yield f"```sh\n{commands}```\n\n```\n{versions}```\n\n## Image\n\n| | |\n|---|---|"
    yield f"| largest difference over the maximum | {image.relative_difference:.3g} (at most {TOLERANCE:g}) |"
    yield f"| correlation | {image.correlation:.9f} |"
    yield f"| ratio of the sums | {image.sum_ratio:.9g} |"
    yield f"| maximum | {image.maximum[0]:.9g} and {image.maximum[1]:.9g} |"
    yield f"| highest peaks matched within {image.radius:g} pixels | {image.matched} of {image.peaks[0]} |\n"
    if result.trace is not None:
        yield f"## Trace\n\n{markdown(result.trace, names)}"


def _for_c(flags: Sequence[str]) -> list[str]:
    """The flags that the C program knows, with the files that they name where they are."""
    kept, words = [], list(flags)
    while words:
        word = words.pop(0)
        flag = BY_NAME[word]
        random = "misset" in flag.sets and words[:1] and words[0].startswith("rand")
        count = 1 if random else flag.count
        values, words = words[:count], words[count:]
        if flag.group == MORE:
            continue
        if set(flag.sets) & set(_FILES):
            values = [str(Path(value).absolute()) for value in values]
        kept += [word, *values]
    return kept


def _run(command: Sequence[str]) -> str:
    with tempfile.TemporaryDirectory() as scratch:
        try:
            done = subprocess.run(
                command, cwd=scratch, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False, errors="replace"
            )
        except OSError as error:
            raise ValueError(f"{command[0]}: expected a program that can be run, got {error.strerror}") from None
    if done.returncode:
        raise ValueError(f"{command[0]}: exit status {done.returncode}; it printed {_end(done.stdout)!r}")
    return done.stdout


def _end(text: str) -> str:
    lines = text.strip().splitlines()
    return lines[-1] if lines else ""


def _traces(experiment: Experiment, log: str, folder: Path) -> TraceComparison | None:
    if experiment.trace_pixel is None:
        return None
    backend = "reference" if experiment.reference else "native"
    ours = trace_diffraction(experiment.simulator, experiment.trace_pixel, backend=backend)
    ours.save(folder / OUR_TRACE)
    if not is_c_output(log.splitlines()):
        return None
    theirs = read_trace(folder / C_LOG)
    theirs.save(folder / C_TRACE)
    return compare(theirs, ours, TRACE_TOLERANCE)
