"""The documents of a dataset in shards that can be read from any position on, and again after a failure.

A position is ``(part, row)`` inside a shard: a part is a row group of a parquet file or the whole of a jsonl file, so
reading goes on from the middle of a large parquet file without its beginning.
"""

from __future__ import annotations

import glob
import hashlib
import logging
import re
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from sem.config_sections import DataConfig

FIRST_DELAY, LONGEST_DELAY = 1.0, 60.0
"""Seconds before the first and at most before any later attempt to go on after a failure."""
_ROWS_PER_READ = 256
_KINDS = {".parquet": "parquet", ".jsonl": "json", ".json": "json", ".ndjson": "json"}
_COMPRESSIONS = (".gz", ".zst", ".bz2", ".xz")
_HUB_NAME = re.compile(r"[\w.-]+(/[\w.-]+)?")
_COMMIT = re.compile(r"@([0-9a-f]{40})/")

logger = logging.getLogger(__name__)


class DataSourceError(RuntimeError):
    """A dataset could not be read, however often that was tried."""


class Position(NamedTuple):
    """Where in a shard to read on."""

    part: int = 0
    row: int = 0


class Record(NamedTuple):
    """A document and its score, and the position behind it."""

    text: str | None
    score: float | None
    behind: Position


class Source(Protocol):
    """Shards of records.

    Attributes:
        name: what to call it in messages.
        num_shards: how many shards it has.
        identity: what it must have in common with another source for a position to mean the same in both.
    """

    @property
    def name(self) -> str: ...

    @property
    def num_shards(self) -> int: ...

    @property
    def identity(self) -> dict[str, str]: ...

    def read(self, shard: int, begin: Position) -> Iterator[Record]: ...


@dataclass(frozen=True)
class DatasetSource:
    """A dataset of the hub by its name, or parquet or jsonl files of this machine, through the datasets library.

    Build it with :func:`open_source`. It can be pickled as long as the library's streaming dataset can.
    """

    name: str
    identity: dict[str, str]
    text_field: str
    score_field: str | None
    dataset: Any

    @property
    def num_shards(self) -> int:
        return self.dataset.num_shards

    def read(self, shard: int, begin: Position) -> Iterator[Record]:
        """The records of ``shard`` from ``begin`` on.

        Raises:
            ValueError: a field is missing, or is no text or no number.
            OSError: the source failed; reading may go on behind the last record.
        """
        parts = self.dataset.shard(num_shards=self.num_shards, index=shard).reshard()
        for part in range(begin.part, parts.num_shards):
            row = 0
            first = begin.row if part == begin.part else 0
            tables = parts.shard(num_shards=parts.num_shards, index=part).with_format("arrow")
            for table in tables.iter(batch_size=_ROWS_PER_READ):
                fresh = table.slice(min(max(first - row, 0), table.num_rows))
                row += table.num_rows - fresh.num_rows
                texts = self._column(fresh, self.text_field)
                scores = self._column(fresh, self.score_field) if self.score_field else [None] * len(texts)
                for text, score in zip(texts, scores, strict=True):
                    row += 1
                    yield Record(self._checked(text), score, Position(part, row))

    def _column(self, table: Any, field: str) -> list[Any]:
        if field not in table.column_names:
            key = "text_field" if field == self.text_field else "score_field"
            raise ValueError(
                f"data.{key} = {field!r}: expected a field of data.dataset = {self.name!r}, "
                f"it has {', '.join(table.column_names)}"
            )
        return table.column(field).to_pylist()

    def _checked(self, text: Any) -> str | None:
        if text is not None and not isinstance(text, str):
            raise ValueError(f"data.text_field = {self.text_field!r}: expected text, got {type(text).__name__}")
        return text


def open_source(config: DataConfig, *, sleep: Callable[[float], None] = time.sleep) -> DatasetSource:
    """The dataset that ``config`` names, ready to be streamed.

    Raises:
        ValueError: there is no such dataset, or it has other fields.
        DataSourceError: it could not be reached after ``config.retries`` more attempts.
        ImportError: the datasets library is not installed.
    """
    name = config.dataset
    if name is None:
        raise ValueError("data.dataset = null: expected the name of a dataset or a folder of its files")
    try:
        from datasets import load_dataset_builder
    except ImportError:
        raise ImportError("data.dataset needs the datasets library: pip install 'sem[hub]'") from None

    files = _local_files(name)
    if files is None:
        arguments: dict[str, Any] = {
            "path": name,
            "name": config.dataset_config,
            "revision": config.dataset_revision,
        }
    else:
        for key in ("dataset_config", "dataset_revision"):
            if getattr(config, key) is not None:
                raise ValueError(f"data.{key} = {getattr(config, key)!r}: expected null for files of this machine")
        kind = _KINDS[_suffix(files[0])]
        arguments = {"path": kind, "data_files": {config.dataset_split: [str(path) for path in files]}}

    def load() -> tuple[Any, list[str]]:
        builder = load_dataset_builder(**arguments)
        dataset = builder.as_streaming_dataset(split=config.dataset_split)
        found = builder.config.data_files or {}
        return dataset, [str(path) for path in found.get(config.dataset_split, [])]

    attempts = Attempts(name, config.retries, sleep=sleep)
    while True:
        try:
            dataset, urls = load()
            break
        except _source_errors() as error:
            attempts.failed(error)
        except ValueError as error:
            raise ValueError(f"data.dataset = {name!r}: {error}") from error
    dataset = _select_fields(config, dataset)
    return DatasetSource(name, _identity(config, files, urls), config.text_field, config.score_field, dataset)


class Attempts:
    """Counts failures in a row, waits twice as long after each, and gives up in the end.

    Args:
        name: of the dataset, for messages.
        retries: failures that are waited for.
        report: takes one message per failure.
        sleep: waits so many seconds.
    """

    def __init__(
        self,
        name: str,
        retries: int,
        *,
        report: Callable[[str], None] = logger.warning,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.name = name
        self.retries = retries
        self.failures = 0
        self._report = report
        self._sleep = sleep

    def succeeded(self) -> None:
        self.failures = 0

    def failed(self, error: Exception) -> None:
        """Wait before the next attempt.

        Raises:
            ValueError: what is asked for is not there, or not for this user; waiting would not help.
            DataSourceError: there were too many failures in a row.
        """
        reason = f"{type(error).__name__}: {str(error).strip() or 'no message'}"
        status = getattr(getattr(error, "response", None), "status_code", None)
        if isinstance(error, (FileNotFoundError, PermissionError)) or status in (401, 403, 404):
            raise ValueError(f"data.dataset = {self.name!r}: {reason}") from error
        self.failures += 1
        if self.failures > self.retries:
            raise DataSourceError(
                f"data.dataset = {self.name!r}: gave up after {self.failures} attempts in a row "
                f"(data.retries = {self.retries}), the last one: {reason}"
            ) from error
        delay = min(FIRST_DELAY * 2 ** (self.failures - 1), LONGEST_DELAY)
        self._report(
            f"data.dataset = {self.name!r}: {reason}; attempt {self.failures} of {self.retries} follows in {delay:g} s"
        )
        self._sleep(delay)


def read_shard(source: Source, shard: int, begin: Position, attempts: Attempts) -> Iterator[Record]:
    """The records of ``shard`` from ``begin`` on; after a failure reading goes on behind the last record.

    Raises:
        ValueError, DataSourceError: as :meth:`Attempts.failed`.
    """
    while True:
        try:
            for record in source.read(shard, begin):
                attempts.succeeded()
                begin = record.behind
                yield record
            return
        except _source_errors() as error:
            attempts.failed(error)
        except ValueError as error:
            if str(error).startswith("data."):
                raise
            raise ValueError(f"data.dataset = {source.name!r}: shard {shard}: {error}") from error


def _source_errors() -> tuple[type[Exception], ...]:
    """What a source that stutters raises: OSError, a file that ends too soon, and the base classes that HTTP libraries
    do not derive from OSError, of those that are loaded."""
    found: list[type[Exception]] = [OSError, EOFError]
    for library, name in (("httpx", "HTTPError"), ("httpx2", "HTTPError"), ("aiohttp", "ClientError")):
        if library in sys.modules:
            found.append(getattr(sys.modules[library], name))
    return tuple(found)


def _local_files(name: str) -> list[Path] | None:
    """The files that ``name`` stands for on this machine, sorted; None for a name on the hub."""
    path = Path(name).expanduser()
    if path.is_dir():
        found = sorted(file for file in path.rglob("*") if file.is_file() and _suffix(file) in _KINDS)
    elif path.is_file():
        found = [path]
    elif any(letter in name for letter in "*?["):
        found = sorted(Path(match) for match in glob.glob(str(path), recursive=True))
        found = [file for file in found if file.is_file()]
    elif _HUB_NAME.fullmatch(name):
        return None
    else:
        raise ValueError(f"data.dataset = {name!r}: expected a name on the hub, or files that exist on this machine")
    kinds = {_KINDS.get(_suffix(file), f"no dataset ({file.name})") for file in found}
    if kinds not in ({"parquet"}, {"json"}):
        received = " and ".join(sorted(kinds)) or "nothing"
        raise ValueError(f"data.dataset = {name!r}: expected parquet files or jsonl files, found {received}")
    return found


def _suffix(path: Path) -> str:
    """The file's kind, without what it is compressed with."""
    return Path(path.stem).suffix if path.suffix in _COMPRESSIONS else path.suffix


def _identity(config: DataConfig, files: list[Path] | None, urls: list[str]) -> dict[str, str]:
    """What has to agree for a position to mean the same; a folder may move, its files may not change."""
    if files is None:
        commits = {match[1] for url in urls if (match := _COMMIT.search(url))}
        entries = [_COMMIT.sub("@/", url) for url in urls]
        names = {"dataset": str(config.dataset), "dataset_config": str(config.dataset_config)}
        names["dataset_revision"] = ", ".join(sorted(commits)) or str(config.dataset_revision)
    else:
        entries = [f"{path.name} {path.stat().st_size}" for path in files]
        names = {}
    digest = hashlib.blake2b("\n".join(entries).encode(), digest_size=8).hexdigest()
    return names | {"dataset_split": config.dataset_split, "files": f"{len(entries)} ({digest})"}


def _select_fields(config: DataConfig, dataset: Any) -> Any:
    """The dataset's needed fields alone, and a complaint at once about a missing one, where it says which it has."""
    names = dataset.column_names
    if names is None:
        return dataset
    needed = {"text_field": config.text_field, "score_field": config.score_field}
    for key, field in needed.items():
        if field is not None and field not in names:
            raise ValueError(
                f"data.{key} = {field!r}: expected a field of data.dataset = {config.dataset!r}, "
                f"it has {', '.join(names)}"
            )
    return dataset.select_columns(sorted({field for field in needed.values() if field is not None}))
