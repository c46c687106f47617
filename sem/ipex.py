"""Intel's extension for PyTorch (IPEX): optional, and imported for Intel GPUs only."""

from __future__ import annotations

import importlib
import importlib.metadata
from types import ModuleType

import torch

MODULE = "intel_extension_for_pytorch"


def load_ipex() -> ModuleType:
    """The extension's module, if it is one for this torch and for XPU devices.

    Raises:
        ImportError: it cannot be used; the message is one line that says why.
    """
    # The version comes from the package's metadata: imported under another torch, IPEX tries to end the process.
    version = _matching_version()
    try:
        ipex = importlib.import_module(MODULE)
    except (Exception, SystemExit) as error:
        raise ImportError(f"IPEX {version} is installed but cannot be imported ({first_line(error)})") from error
    if ipex.__version__.endswith("+cpu"):
        raise ImportError(f"IPEX {ipex.__version__} is built for CPUs")
    return ipex


def xpu_path() -> str:
    """What a model on an XPU device is run with here: ``"IPEX ..."`` or ``"torch's own; ..."`` and the reason.

    Without an XPU device the extension is not imported, and its version alone decides.
    """
    try:
        version = _matching_version()
        if not torch.xpu.is_available():
            return f"IPEX {version}, if it can be imported; no XPU device to try it for"
        return f"IPEX {load_ipex().__version__}"
    except ImportError as error:
        return f"torch's own; {error}"


def first_line(error: BaseException) -> str:
    """Type and first line of an error's message."""
    return f"{type(error).__name__}: {error}".splitlines()[0]


def _matching_version() -> str:
    try:
        version = importlib.metadata.version(MODULE)
    except importlib.metadata.PackageNotFoundError:
        raise ImportError("IPEX not installed") from None
    if _minor(version) != _minor(torch.__version__):
        raise ImportError(f"IPEX {version} is for torch {_minor(version)}, this is torch {torch.__version__}")
    return version


def _minor(version: str) -> str:
    return ".".join(version.split(".")[:2])
