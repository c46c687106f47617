"""The public names of :mod:`sem.diffraction`."""

from sem.diffraction.beam import Beam, SourceRow
from sem.diffraction.conventions import CONVENTIONS, Convention, custom
from sem.diffraction.crystal import Crystal
from sem.diffraction.detector import Detector
from sem.diffraction.experiment import Experiment, experiment_from
from sem.diffraction.reflections import Reflections
from sem.diffraction.simulator import Simulator

__all__ = [
    "CONVENTIONS",
    "Beam",
    "Convention",
    "Crystal",
    "Detector",
    "Experiment",
    "Reflections",
    "Simulator",
    "SourceRow",
    "custom",
    "experiment_from",
]
