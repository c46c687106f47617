"""Which format a file has, by its content: what it is named counts only where its bytes could be several."""

from __future__ import annotations

import re
from pathlib import Path

from sem.diffraction.files.access import beginning_of

MTZ, CIF, EXPERIMENTS = "MTZ", "CIF", "dxtbx experiments"
SMV, PGM, NPY, CBF, EDF, TIFF, HDF5 = "SMV", "PGM", "npy", "CBF", "EDF", "TIFF", "HDF5"
UNKNOWN = "unknown"

_BEGINNING = 1 << 16  # bytes that are looked at
_BEGINS = (
    (b"MTZ ", MTZ),
    (b"\x89HDF\r\n\x1a\n", HDF5),
    (b"\x93NUMPY", NPY),
    (b"P5", PGM),
    (b"II*\0", TIFF),
    (b"MM\0*", TIFF),
    (b"###CBF", CBF),
)
_CIF_SUFFIXES = (".cif", ".mmcif", ".ent", ".cbf")
_BINARY_SECTION = b"--CIF-BINARY-FORMAT-SECTION--"


def kind_of(path: str | Path) -> str:
    """One of the names above; :data:`UNKNOWN` for what says nothing of itself: rows of text, raw numbers.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "a.txt"
        >>> _ = path.write_text("1 0 0 3.5")
        >>> kind_of(path)
        'unknown'

    Raises:
        ValueError: the file cannot be read.
    """
    if Path(path).suffix == ".gz":
        inner = Path(path).with_suffix("").suffix.lower()
        return CIF if inner in _CIF_SUFFIXES and _is_cif(beginning_of(path, _BEGINNING)) else UNKNOWN
    begin = beginning_of(path, _BEGINNING)
    for magic, kind in _BEGINS:
        if begin.startswith(magic):
            return kind
    text = begin.lstrip(b"\xef\xbb\xbf \t\r\n")
    if text.startswith(b"{"):
        return _of_brace(text, Path(path).suffix.lower())
    if _is_cif(begin):
        return CBF if _BINARY_SECTION in begin else CIF
    return UNKNOWN


def _of_brace(text: bytes, suffix: str) -> str:
    """JSON, EDF and SMV begin with the same character: JSON goes on with a name in quotation marks."""
    if re.match(rb'\{\s*("|\})', text) or suffix in (".expt", ".json"):
        return EXPERIMENTS
    header = text.partition(b"}")[0]
    return EDF if re.search(rb"(EDF_DataBlockID|EDF_BinarySize|HeaderID|Dim_1)\s*=", header) else SMV


def _is_cif(text: bytes) -> bool:
    """Whether the first line that is no comment opens a block of data."""
    lines = (line.strip() for line in text.splitlines())
    return next((line for line in lines if line and not line.startswith(b"#")), b"").startswith(b"data_")
