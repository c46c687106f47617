"""An engine's state as a file: nested dictionaries and lists of tensors and plain values, bit for bit.

Every tensor is a dataset whose name is its path in the state; what holds them together is text (JSON) in the dataset
``structure``. The file ends in a digest of all its bytes (:mod:`sem.seal`), which is checked before HDF5 reads it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sem.files import replacing
from sem.hdf5 import Source, library, reading
from sem.seal import append_seal, is_whole

FORMAT = "sem ptychographic state"
VERSION = 1
_STRUCTURE = "structure"
_KINDS = ("tensor", "dict", "list", "tuple")


def write_state(path: str | os.PathLike[str], state: Mapping[str, Any]) -> None:
    """Write a state; the file is complete, or what it was before.

    Args:
        state: dictionaries, lists and tuples of tensors, numbers, text, booleans and None; keys are text or integers.

    Raises:
        OSError: the file could not be written.
        ImportError: h5py is not installed.
        TypeError: something else is in the state, or a tensor of a dtype that files do not hold; the message names it.
    """
    h5py = library()
    tensors: dict[str, Tensor] = {}
    structure = json.dumps(_described(dict(state), "", tensors))
    arrays = {name: _array(name, tensor) for name, tensor in tensors.items()}
    with replacing(Path(path)) as temporary:
        with h5py.File(temporary.name, "w") as file:
            file.attrs.update({"format": FORMAT, "version": VERSION})
            file[_STRUCTURE] = structure
            for name, array in arrays.items():
                file[name] = array
        append_seal(temporary)


def read_state(path: str | os.PathLike[str]) -> dict[str, Any]:
    """What :func:`write_state` wrote.

    Raises:
        OSError: there is no such file, or it may not be read.
        ImportError: h5py is not installed.
        ValueError: the file is damaged, or no state; the message names it and says what is wrong.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "state.h5"
        >>> write_state(path, {"object": torch.ones(2), "rates": [0.1, None]})
        >>> read_state(path)
        {'object': tensor([1., 1.]), 'rates': [0.1, None]}
    """
    path = Path(path)
    if not (whole := is_whole(path)):
        why = "it has no digest at its end" if whole is None else "its bytes are not those that were written"
        raise ValueError(f"{path}: expected a complete file of a run's state: {why}")
    with reading(path) as source:
        found, version = (source.attribute(source.root, name) for name in ("format", "version"))
        if (str(found), str(version)) != (FORMAT, str(VERSION)):
            raise ValueError(f"{path}: expected '{FORMAT}' of version {VERSION}, got {found!r} of version {version}")
        source.needed(_STRUCTURE)
        try:
            state = _built(json.loads(source.text(_STRUCTURE)), source)
        except (json.JSONDecodeError, RecursionError, KeyError, TypeError) as error:
            raise ValueError(f"{path}: {_STRUCTURE}: expected a state's structure, got another ({error})") from None
    if not isinstance(state, dict):
        raise ValueError(f"{path}: {_STRUCTURE}: expected a dictionary, got {type(state).__name__}")
    return state


def _described(value: Any, name: str, tensors: dict[str, Tensor]) -> Any:
    """``value`` as JSON holds it, with its tensors gathered under their paths."""
    if isinstance(value, Tensor):
        if name in tensors or name == _STRUCTURE:
            raise TypeError(f"state: expected one tensor of each name, and none named {_STRUCTURE}, got {name!r}")
        tensors[name] = value
        return {"tensor": name}
    if isinstance(value, dict):
        if not all(isinstance(key, (str, int)) for key in value) or any("/" in str(key) for key in value):
            raise TypeError(f"state: expected keys that are text without / or integers, got {list(value)} in {name!r}")
        return {"dict": [[key, _described(v, f"{name}/{key}".lstrip("/"), tensors)] for key, v in value.items()]}
    if isinstance(value, (list, tuple)):
        kind = "list" if isinstance(value, list) else "tuple"
        return {kind: [_described(v, f"{name}/{k}", tensors) for k, v in enumerate(value)]}
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise TypeError(f"state: expected tensors and plain values, got {type(value).__name__} in {name!r}")


def _built(described: Any, source: Source) -> Any:
    if not isinstance(described, dict):
        return described
    ((kind, content),) = described.items()
    if kind == "tensor":
        return torch.from_numpy(source.array(source.needed(content)).copy())
    if kind == "dict":
        return {key: _built(value, source) for key, value in content}
    if kind not in _KINDS:
        raise TypeError(f"a {kind}")
    values = [_built(value, source) for value in content]
    return values if kind == "list" else tuple(values)


def _array(name: str, tensor: Tensor) -> Any:
    try:
        return tensor.detach().resolve_conj().resolve_neg().cpu().numpy()
    except TypeError:
        raise TypeError(f"state: {name}: expected a dtype that files hold, got {tensor.dtype}") from None
