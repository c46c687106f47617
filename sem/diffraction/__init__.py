"""Differentiable X-ray diffraction: crystal, beam and detector to the image that they give, in nanoBragg's numbers.

Lengths of cells and wavelengths are in Å, of detectors in mm, angles in degrees, as on that program's command line.

What a name needs, torch above all, is loaded when the name is first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sem.diffraction.background import Background
    from sem.diffraction.beam import Beam, SourceRow
    from sem.diffraction.conventions import CONVENTIONS, Convention, custom
    from sem.diffraction.crystal import Crystal
    from sem.diffraction.detector import Detector
    from sem.diffraction.experiment import Experiment, experiment_from
    from sem.diffraction.files.dxtbx import DxtbxExperiment, experiment_of
    from sem.diffraction.files.dxtbx_document import read_experiments, write_experiments
    from sem.diffraction.files.reflection_list import open_reflections, write_mtz
    from sem.diffraction.images import read_panels, write_field
    from sem.diffraction.panels import Panels
    from sem.diffraction.point_spread import PointSpread
    from sem.diffraction.readout import Readout
    from sem.diffraction.reflections import Reflections
    from sem.diffraction.simulator import Simulator
else:
    _MODULES = {
        "Background": "background",
        "Beam": "beam",
        "SourceRow": "beam",
        "CONVENTIONS": "conventions",
        "Convention": "conventions",
        "custom": "conventions",
        "Crystal": "crystal",
        "Detector": "detector",
        "Experiment": "experiment",
        "experiment_from": "experiment",
        "read_panels": "images",
        "write_field": "images",
        "Panels": "panels",
        "PointSpread": "point_spread",
        "Readout": "readout",
        "Reflections": "reflections",
        "Simulator": "simulator",
        "DxtbxExperiment": "files.dxtbx",
        "experiment_of": "files.dxtbx",
        "read_experiments": "files.dxtbx_document",
        "write_experiments": "files.dxtbx_document",
        "open_reflections": "files.reflection_list",
        "write_mtz": "files.reflection_list",
    }

    def __getattr__(name: str) -> Any:
        if name not in _MODULES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(import_module(f"sem.diffraction.{_MODULES[name]}"), name)

    def __dir__() -> list[str]:
        return sorted({*globals(), *_MODULES})


__all__ = [
    "CONVENTIONS",
    "Background",
    "Beam",
    "Convention",
    "Crystal",
    "Detector",
    "DxtbxExperiment",
    "Experiment",
    "Panels",
    "PointSpread",
    "Readout",
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
