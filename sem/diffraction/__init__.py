"""Differentiable X-ray diffraction: crystal, beam and detector to the image that they give, in nanoBragg's numbers.

Lengths of cells and wavelengths are in Å, of detectors in mm, angles in degrees, as on that program's command line.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from sem.diffraction.beam import Beam, SourceRow
from sem.diffraction.conventions import CONVENTIONS, Convention, custom
from sem.diffraction.crystal import Crystal
from sem.diffraction.detector import Detector
from sem.diffraction.experiment import Experiment, experiment_from
from sem.diffraction.images import read_panels, write_field
from sem.diffraction.reflections import Reflections
from sem.diffraction.simulator import Simulator

if TYPE_CHECKING:
    from sem.diffraction.files.dxtbx import DxtbxExperiment, experiment_of
    from sem.diffraction.files.dxtbx_document import read_experiments, write_experiments
    from sem.diffraction.files.reflection_list import open_reflections, write_mtz
else:
    _FILES = {
        "DxtbxExperiment": "dxtbx",
        "experiment_of": "dxtbx",
        "read_experiments": "dxtbx_document",
        "write_experiments": "dxtbx_document",
        "open_reflections": "reflection_list",
        "write_mtz": "reflection_list",
    }

    def __getattr__(name: str) -> Any:
        """What only files need is loaded when it is asked for: a simulation starts without it."""
        if name not in _FILES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(import_module(f"sem.diffraction.files.{_FILES[name]}"), name)


__all__ = [
    "CONVENTIONS",
    "Beam",
    "Convention",
    "Crystal",
    "Detector",
    "DxtbxExperiment",
    "Experiment",
    "Reflections",
    "Simulator",
    "SourceRow",
    "custom",
    "experiment_from",
    "experiment_of",
    "open_reflections",
    "read_experiments",
    "read_panels",
    "write_experiments",
    "write_field",
    "write_mtz",
]
