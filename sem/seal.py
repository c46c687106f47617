"""A file that says whether it is whole: its last bytes are a digest of every byte before them.

Zip readers keep to the directory at the end, to the records' own headers or to a mixture, so that two of them may
disagree about one altered byte; HDF5 has checksums of some parts and reads others as they come. The digest is of the
file, not of what a reader makes of it. In a zip archive it is the comment; after an HDF5 file's end no reader looks.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

_MARK = b"sem sha256 "
_SEAL = re.compile(re.escape(_MARK) + rb"([0-9a-f]{64})")
_LENGTH = len(_MARK) + 64
_END = 22  # bytes of the last record of an archive without a comment, which end in the comment's length
_CHUNK = 1 << 20


class SealingFile:
    """A file to write an archive to, front to back; :meth:`seal` completes it.

    Attributes:
        error: the operating system's error, if one ended a write; ``torch.save`` replaces it by its own.

    Example:
        >>> import io, tempfile, zipfile
        >>> path = Path(tempfile.mkdtemp()) / "archive.zip"
        >>> with open(path, "wb") as file:
        ...     sealing = SealingFile(file)
        ...     with zipfile.ZipFile(sealing, "w") as archive:
        ...         archive.writestr("name", b"content")
        ...     sealing.seal()
        >>> is_whole(path)
        True
    """

    def __init__(self, file: IO[bytes]) -> None:
        self.error: OSError | None = None
        self._file = file
        self._digest = hashlib.sha256()
        self._held = b""  # the last bytes, of which the archive's end will be one part

    def write(self, data: Any) -> int:
        """Write and digest ``data``, any buffer of bytes, but for the last few so far, which :meth:`seal` may have to
        alter. Returns the number of bytes taken.

        Raises:
            OSError: the file could not be written; ``error`` keeps it.
        """
        view = memoryview(data).cast("B")
        if len(view) < _END:
            joined = self._held + bytes(view)
            self._emit(joined[:-_END])
            self._held = joined[-_END:]
        else:
            self._emit(self._held)
            self._emit(view[:-_END])
            self._held = bytes(view[-_END:])
        return len(view)

    def flush(self) -> None:
        """Flush the file; the bytes that are held back stay so."""
        self._file.flush()

    def seal(self) -> None:
        """Write what is left, and the digest as the archive's comment.

        Raises:
            ValueError: what was written is no archive without a comment.
        """
        if not (self._held.startswith(b"PK\x05\x06") and self._held.endswith(b"\0\0")):
            raise ValueError("archive: expected a zip archive without a comment")
        self._emit(self._held[:-2] + _LENGTH.to_bytes(2, "little"))
        self._file.write(_MARK + self._digest.hexdigest().encode())

    def _emit(self, data: bytes | memoryview) -> None:
        if not len(data):
            return
        with self._digesting(data):
            try:
                self._file.write(data)
            except OSError as error:
                self.error = error
                raise

    @contextlib.contextmanager
    def _digesting(self, data: bytes | memoryview) -> Iterator[None]:
        """Beside the block where ``data`` is long: the digest takes as long as writing to the disk's cache."""
        if len(data) < _CHUNK:
            self._digest.update(data)
            yield
            return
        thread = threading.Thread(target=self._digest.update, args=(data,))
        thread.start()
        try:
            yield
        finally:
            thread.join()


def append_seal(file: IO[bytes]) -> None:
    """Seal what ``file``, open for writing under its own name, holds: for formats whose readers do not look beyond
    their end.

    Raises:
        OSError: the file could not be read or written.
    """
    digest = hashlib.sha256()
    file.flush()
    with open(file.name, "rb") as written:
        while chunk := written.read(_CHUNK):
            digest.update(chunk)
    file.seek(0, 2)
    file.write(_MARK + digest.hexdigest().encode())


def is_whole(path: str | Path) -> bool | None:
    """Whether the bytes of ``path`` are those that were sealed; None where there is no seal, nor what is left of one.

    Raises:
        OSError: the file could not be read.
    """
    with open(path, "rb") as file:
        size = file.seek(0, 2)
        file.seek(max(size - _LENGTH, 0))
        end = file.read()
        seal = _SEAL.fullmatch(end)
        if seal is None:
            return False if _MARK in end else None
        file.seek(0)
        digest, left = hashlib.sha256(), size - _LENGTH
        while left and (chunk := file.read(min(_CHUNK, left))):
            digest.update(chunk)
            left -= len(chunk)
    return digest.hexdigest().encode() == seal[1]
