"""Small shots with noise, and models that start a little beside the truth."""

import torch

from sem.diffraction import experiment_from
from sem.diffraction.images import write_float
from sem.diffraction.refinement import Model, Shot, write_model

TRUTH = (30.0, 40.0, 50.0)
SMALL = "-cell 70 80 90 75 85 95 -N 5 -lambda 1 -detpixels 40 -pixel 0.3 -distance 50 -oversample 2 -default_F 60"
FLAGS = tuple(SMALL.split())
BACKGROUND = 3.0


def simulator_at(misset=TRUTH, flags=FLAGS):
    return experiment_from([*flags, "-misset", *map(str, misset)]).simulator


def noisy(simulator, seed, peak=500.0, background=BACKGROUND):
    """Photons of the simulator's image with ``peak`` expected in its brightest pixel."""
    with torch.no_grad():
        image = simulator().to(torch.float64)
    mean = image / image.max() * peak + background
    return torch.poisson(mean, generator=torch.Generator().manual_seed(seed))


def shot_of(counts, variance=None):
    return Shot(counts, torch.ones(counts.shape, dtype=torch.bool), variance)


def beside(offset=0.15):
    """Where a refinement starts."""
    return TRUTH[0] + offset, TRUTH[1] - offset, TRUTH[2] + offset / 2


def write_shots(folder, count):
    """``folder/images`` with shots of one crystal, and ``folder/start.json``, from which all of them start."""
    (folder / "images").mkdir()
    for seed in range(count):
        write_float(folder / "images" / f"s{seed}.bin", noisy(simulator_at(), seed))
    write_model(folder / "start.json", Model(FLAGS, {"crystal.misset": list(beside())}))
    return folder / "start.json", folder / "images"
