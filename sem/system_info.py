"""What this installation can do: versions, back ends, instruction set, threads."""

from __future__ import annotations

import importlib.metadata
import platform
from collections.abc import Iterator

import torch

import sem
from sem import native
from sem.ipex import xpu_path

OPTIONAL_PACKAGES = (
    "tensorboard",
    "matplotlib",
    "safetensors",
    "lightning",
    "datasets",
    "tokenizers",
    "transformers",
    "huggingface_hub",
)


def system_info() -> Iterator[tuple[str, str]]:
    """Name and value of everything worth knowing in a report of a problem, in order."""
    yield "sem", sem.__version__
    yield "python", platform.python_version()
    yield "torch", torch.__version__
    for package in OPTIONAL_PACKAGES:
        yield package, _version(package)
    yield "platform", platform.platform()
    report = native.capabilities()
    for kind, built in report.pop("built").items():
        yield f"{kind} kernels", _state(kind, built)
    for name, value in report.items():
        yield name, str(value)
    for kind in ("cuda", "xpu"):
        backend = getattr(torch, kind)
        count = backend.device_count() if backend.is_available() else 0
        names = [backend.get_device_name(index) for index in range(count)]
        yield f"{kind} devices", ", ".join(names) or "none"
    yield "xpu path", xpu_path()


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def _state(kind: str, built: bool) -> str:
    if not built:
        return "not built"
    usable = kind == "cpu" or getattr(torch, kind).is_available()
    return "built, usable" if usable else f"built, but torch finds no {kind} device"
