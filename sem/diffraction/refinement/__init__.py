"""Refinement: parameters of a diffraction experiment from measured images, with their standard deviations."""

from sem.diffraction.refinement.coordinates import REFINABLE, SYSTEMS, Coordinates
from sem.diffraction.refinement.fit import CONVERGED, DIVERGED, Fit, Stopped, refine
from sem.diffraction.refinement.model_file import Model, read_model, write_model
from sem.diffraction.refinement.pictures import fit_pictures
from sem.diffraction.refinement.run import Summary, metrics, refine_shots
from sem.diffraction.refinement.settings import RefinementSettings
from sem.diffraction.refinement.shot import Shot, read_shot
from sem.diffraction.refinement.shots import FAILED, Result, Task, tasks_from

__all__ = [
    "CONVERGED",
    "DIVERGED",
    "FAILED",
    "REFINABLE",
    "SYSTEMS",
    "Coordinates",
    "Fit",
    "Model",
    "RefinementSettings",
    "Result",
    "Shot",
    "Stopped",
    "Summary",
    "Task",
    "fit_pictures",
    "metrics",
    "read_model",
    "read_shot",
    "refine",
    "refine_shots",
    "tasks_from",
    "write_model",
]
