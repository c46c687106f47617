"""The records of one parquet or json lines file: text and score alone, whatever else its rows hold.

Columns that nobody asked for are not read, so that neither their types nor their absence matters. What a file cannot
give is said in one line with the file and the place.
"""

from __future__ import annotations

import bz2
import gzip
import io
import json
import logging
import lzma
import zlib
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import IO, Any, TypeAlias

KINDS = {".parquet": "parquet", ".jsonl": "json", ".json": "json", ".ndjson": "json"}
COMPRESSIONS = (".gz", ".zst", ".bz2", ".xz")
HUB = "hf://"
_ROWS_PER_READ = 256
_LONGEST = 1 << 28  # bytes of a row: whoever decompresses without end does not fill the memory
_ENOUGH = 1000  # records without a field after which nobody waits for it
_BOM = b"\xef\xbb\xbf"

Row: TypeAlias = "tuple[str | None, Any, int, int, str]"

logger = logging.getLogger(__name__)


class BadRow(ValueError):
    """A row that is no record."""


@dataclass(frozen=True)
class Fields:
    """What is read of a row.

    Attributes:
        text, score: names of fields; no score where None.
        skip_bad: leave out rows that are no records, and say how many; else the first one is an error.
    """

    text: str
    score: str | None = None
    skip_bad: bool = False

    @property
    def names(self) -> list[str]:
        """The fields to read: ``text``, and ``score`` where there is one."""
        return [self.text, *([] if self.score is None else [self.score])]


def suffix_of(path: str) -> str:
    """The file's kind, without what it is compressed with."""
    pure = PurePosixPath(path)
    return PurePosixPath(pure.stem).suffix if pure.suffix in COMPRESSIONS else pure.suffix


def read_rows(path: str, fields: Fields, part: int = 0, row: int = 0) -> Iterator[Row]:
    """Text, score, the part and row behind them, and their place in words, of each record from ``(part, row)`` on.

    A part is a row group of a parquet file, or the whole of a json file.

    Raises:
        ValueError: the file is damaged, or lacks a field, or a row is no record.
        OSError: the file could not be read.
    """
    read = _parquet_rows if KINDS[suffix_of(path)] == "parquet" else _json_rows
    yield from read(path, fields, part, row)


def _parquet_rows(path: str, fields: Fields, part: int, row: int) -> Iterator[Row]:
    import pyarrow
    from pyarrow import parquet

    def damaged(error: Exception) -> ValueError:
        return ValueError(f"{path}: damaged, or no parquet file ({_one_line(error)})")

    with closing(_opened(path)) as raw:
        try:
            file = parquet.ParquetFile(raw)
            known = file.schema_arrow.names
        except (pyarrow.ArrowException, ValueError) as error:
            raise damaged(error) from None
        _require(path, fields, known)
        for group in range(part, file.num_row_groups):
            at, skip = 0, row if group == part else 0
            try:
                batches = file.iter_batches(_ROWS_PER_READ, row_groups=[group], columns=fields.names)
                for batch in batches:
                    fresh = batch.slice(min(max(skip - at, 0), len(batch)))
                    at += len(batch) - len(fresh)
                    texts = fresh.column(fields.text).to_pylist()
                    scores = [None] * len(texts) if fields.score is None else fresh.column(fields.score).to_pylist()
                    for text, score in zip(texts, scores, strict=True):
                        at += 1
                        place = f"{path}: row {at} of group {group}"
                        yield _checked(place, fields, text), score, group, at, place
            except pyarrow.ArrowException as error:
                raise damaged(error) from None


def _json_rows(path: str, fields: Fields, part: int, row: int) -> Iterator[Row]:
    count, bad, first_bad = 0, 0, ""
    seen: set[str] = set()
    for place, read in _objects(path):
        count += 1
        if count <= row:
            continue
        try:
            record = read()
            if not isinstance(record, dict):
                raise BadRow(f"{place}: expected an object, got {type(record).__name__}")
            seen.update(record)
            if count - row - bad == _ENOUGH:
                _require(path, fields, sorted(seen))
            text = _checked(place, fields, record.get(fields.text))
        except BadRow as error:
            if not fields.skip_bad:
                raise ValueError(f"{error} (data.bad_rows = 'skip' leaves such rows out)") from None
            bad, first_bad = bad + 1, first_bad or str(error)
            continue
        yield text, record.get(fields.score) if fields.score else None, part, count, place
    if count > row and count - row > bad:
        _require(path, fields, sorted(seen))
    if bad:
        logger.warning("%s: left out %d rows that are no records, the first: %s", path, bad, first_bad)


def _objects(path: str) -> Iterator[tuple[str, Any]]:
    """The place and a parser of each record of a json lines file, or of a json file that is one list."""
    with closing(_decompressed(path)) as file:
        number, first = 0, True
        while True:
            number += 1
            try:
                line = file.readline(_LONGEST + 1)
            except (EOFError, zlib.error, lzma.LZMAError, gzip.BadGzipFile) as error:
                raise ValueError(f"{path}: damaged behind line {number - 1} ({_one_line(error)})") from None
            except OSError as error:
                if error.errno is None:  # of a decompressor, not of the disk
                    raise ValueError(f"{path}: damaged behind line {number - 1} ({_one_line(error)})") from None
                raise
            if not line:
                return
            if len(line) > _LONGEST:
                raise ValueError(f"{path}: line {number}: expected at most {_LONGEST >> 20} MiB")
            line = line.removeprefix(_BOM) if first else line
            if not line.strip():
                continue
            if first and line.lstrip().startswith(b"[") and suffix_of(path) == ".json":
                content = line + file.read(_LONGEST + 1)
                if len(content) > _LONGEST:
                    raise ValueError(f"{path}: expected a list of at most {_LONGEST >> 20} MiB; write a row per line")
                yield from _listed(path, content)
                return
            first = False
            yield f"{path}: line {number}", lambda line=line, number=number: _parsed(f"{path}: line {number}", line)


def _listed(path: str, content: bytes) -> Iterator[tuple[str, Any]]:
    try:
        records = _parsed(path, content)
    except BadRow as error:
        raise ValueError(str(error)) from None
    for number, record in enumerate(records, 1):
        yield f"{path}: entry {number}", lambda record=record: record


def _parsed(place: str, line: bytes) -> Any:
    try:
        return json.loads(line)
    except UnicodeDecodeError as error:
        raise BadRow(f"{place}: not UTF-8 ({error.reason} at byte {error.start})") from None
    except (ValueError, RecursionError) as error:
        raise BadRow(f"{place}: no JSON ({_one_line(error)})") from None


def _checked(place: str, fields: Fields, text: Any) -> str | None:
    """The text of a row, which may have none.

    Raises:
        BadRow: it is something else, or no Unicode.
    """
    if text is None:
        return None
    if not isinstance(text, str):
        raise BadRow(f"data.text_field = {fields.text!r}: expected text, got {type(text).__name__} in {place}")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise BadRow(f"{place}: no Unicode text (half a surrogate pair at character {error.start})") from None
    return text


def check_fields(path: str, fields: Fields) -> None:
    """Where a file says which fields it has, complain at once about one that is missing.

    Raises:
        ValueError: it has no such field, or is damaged.
        OSError: it could not be read.
    """
    if KINDS[suffix_of(path)] == "parquet":
        import pyarrow
        from pyarrow import parquet

        with closing(_opened(path)) as raw:
            try:
                known = parquet.read_schema(raw).names
            except (pyarrow.ArrowException, ValueError) as error:
                raise ValueError(f"{path}: damaged, or no parquet file ({_one_line(error)})") from None
        _require(path, fields, known)


def _require(path: str, fields: Fields, known: list[str]) -> None:
    for key, name in (("text_field", fields.text), ("score_field", fields.score)):
        if name is not None and name not in known:
            raise ValueError(f"data.{key} = {name!r}: expected a field of {path}, it has {', '.join(known) or 'none'}")


def _opened(path: str) -> IO[bytes]:
    if not path.startswith(HUB):
        return open(path, "rb")
    from huggingface_hub import HfFileSystem

    return HfFileSystem().open(path.removeprefix(HUB), "rb")


def _decompressed(path: str) -> Any:
    raw = _opened(path)
    ending = PurePosixPath(path).suffix
    if ending == ".gz":
        return gzip.GzipFile(fileobj=raw)
    if ending == ".bz2":
        return bz2.BZ2File(raw)
    if ending == ".xz":
        return lzma.LZMAFile(raw)
    if ending == ".zst":
        import pyarrow

        return io.BufferedReader(pyarrow.input_stream(raw, compression="zstd"))
    return raw


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
