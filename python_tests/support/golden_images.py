"""The C program's images, with the command lines that made them."""

import gzip
import json
import shlex
from pathlib import Path

import numpy as np
import torch

from sem.diffraction import experiment_from

GOLDEN = Path(__file__).parents[1] / "diffraction" / "golden"
CASES = json.loads((GOLDEN / "cases.json").read_text())
IMAGES = np.load(GOLDEN / "cases.npz")
PEAKS = {
    "simple_cubic_1024": "-N 5 -lambda 6.2 -cell 100 100 100 90 90 90 -default_F 100 -distance 100 -pixel 0.1 "
    "-detpixels 1024",
    "triclinic_512": "-misset -89.968546 -31.328953 177.753396 -cell 70 80 90 75 85 95 -default_F 100 -N 5 "
    "-lambda 1.0 -detpixels 512",
}
PARITY = {"phi0_carryover": ["-phi_carryover", "c-parity"]}
LARGEST_ERROR, LEAST_CORRELATION = 2e-5, 0.9999999


def flags_of(name):
    return [*shlex.split(CASES[name])[1:], *PARITY.get(name, [])]


def write_inputs(folder):
    """The files that the command lines name."""
    (folder / "a.hkl").write_bytes(gzip.decompress((GOLDEN / "a.hkl.gz").read_bytes()))
    (folder / "src.txt").write_bytes((GOLDEN / "src.txt").read_bytes())


def image_of(flags, *, reference=False):
    with torch.no_grad():
        return experiment_from(flags).simulator(reference=reference)


def golden_and(name, image):
    """The C program's image of a case and one to compare it with."""
    return torch.from_numpy(IMAGES[name]), image
