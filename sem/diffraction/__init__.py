"""Differentiable X-ray diffraction: crystal, beam and detector to the image that they give, in nanoBragg's numbers.

Lengths of cells and wavelengths are in Å, of detectors in mm, angles in degrees, as on that program's command line.

The names are those of :mod:`sem.diffraction.public`, loaded when the first is used, and torch with them.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sem.diffraction.public import *  # noqa: F403
else:

    def __getattr__(name: str) -> Any:
        public = import_module("sem.diffraction.public")
        if name != "__all__" and name not in public.__all__:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(public, name)

    def __dir__() -> list[str]:
        return sorted({*globals(), *import_module("sem.diffraction.public").__all__})
