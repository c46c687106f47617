"""Ptychography: scans, simulation, engines and scores on the exact forward model of :mod:`sem.ops`.

The names are those of :mod:`sem.ptycho.public`. They are loaded, and torch with them, when the first is used: what the
command line says of its options needs none of them.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sem.ptycho.public import *  # noqa: F403
else:

    def __getattr__(name: str) -> Any:
        public = import_module("sem.ptycho.public")
        if name != "__all__" and name not in public.__all__:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(public, name)

    def __dir__() -> list[str]:
        return sorted({*globals(), *import_module("sem.ptycho.public").__all__})
