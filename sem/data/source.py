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
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol

from sem.config_sections import DataConfig
from sem.data.shards import KINDS, Fields, check_fields, read_rows, suffix_of
from sem.extras import how_to_install

FIRST_DELAY, LONGEST_DELAY = 1.0, 60.0
"""Seconds before the first and at most before any later attempt to go on after a failure."""
CONTENT = "content"
"""The entry of a source's identity that says what files of this machine hold; earlier versions wrote none."""
_BLOCKS, _BLOCK = 16, 4096  # what is looked at of a file
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
    """A document and its score, the position behind it, and where it stands, for messages."""

    text: str | None
    score: float | None
    behind: Position
    place: str = ""


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

    def read(self, shard: int, begin: Position) -> Iterator[Record]:
        """The records of ``shard``, counted from 0, from the position ``begin`` on."""


@dataclass(frozen=True)
class FileSource:
    """Parquet or jsonl files, of this machine or of a dataset on the hub. Build it with :func:`open_source`."""

    name: str
    identity: dict[str, str]
    files: tuple[str, ...]
    fields: Fields

    @property
    def num_shards(self) -> int:
        """One to a file."""
        return len(self.files)

    def read(self, shard: int, begin: Position) -> Iterator[Record]:
        """The records of ``shard`` from ``begin`` on.

        Raises:
            ValueError: the file is damaged, a field is missing, or a row is no record.
            OSError: the source failed; reading may go on behind the last record.
        """
        for text, score, part, row, place in read_rows(self.files[shard], self.fields, *begin):
            yield Record(text, score, Position(part, row), place)


def open_source(config: DataConfig, *, sleep: Callable[[float], None] = time.sleep) -> FileSource:
    """The dataset that ``config`` names, ready to be streamed.

    Raises:
        ValueError: there is no such dataset, or its files are of another kind.
        DataSourceError: it could not be reached after ``config.retries`` more attempts.
        ImportError: the datasets library is not installed.
    """
    name = config.dataset
    if name is None:
        raise ValueError("data.dataset = null: expected the name of a dataset or a folder of its files")
    local = _local_files(name)
    if local is None:
        files = _hub_files(name, config, Attempts(name, config.retries, sleep=sleep))
    else:
        for key in ("dataset_config", "dataset_revision"):
            if getattr(config, key) is not None:
                raise ValueError(f"data.{key} = {getattr(config, key)!r}: expected null for files of this machine")
        files = [str(path) for path in local]
    fields = Fields(config.text_field, config.score_field, config.bad_rows == "skip")
    if local is not None:
        try:
            check_fields(files[0], fields)
        except ValueError as error:
            raise error if str(error).startswith("data.") else ValueError(f"data.dataset = {name!r}: {error}") from None
    return FileSource(name, _identity(config, local, files), tuple(files), fields)


def _hub_files(name: str, config: DataConfig, attempts: Attempts) -> list[str]:
    """Where the files of a dataset on the hub are, those of its split, as its card and their names say."""
    try:
        from datasets import load_dataset_builder
    except ImportError:
        raise ImportError(f"data.dataset needs the datasets library: {how_to_install('hub')}") from None
    while True:
        try:
            builder = load_dataset_builder(name, config.dataset_config, revision=config.dataset_revision)
            break
        except _source_errors() as error:
            attempts.failed(error)
        except ValueError as error:
            raise ValueError(f"data.dataset = {name!r}: {error}") from error
    splits = builder.config.data_files or {}
    if config.dataset_split not in splits:
        known = ", ".join(map(str, splits)) or "none"
        raise ValueError(f"data.dataset_split = {config.dataset_split!r}: expected a split of {name!r}, it has {known}")
    files = [str(path) for path in splits[config.dataset_split]]
    _require_one_kind(name, files)
    return files


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
        """Forget the failures so far: only those in a row count."""
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
        found = sorted(file for file in path.rglob("*") if file.is_file() and suffix_of(str(file)) in KINDS)
    elif path.is_file():
        found = [path]
    elif any(letter in name for letter in "*?["):
        found = sorted(Path(match) for match in glob.glob(str(path), recursive=True))
        found = [file for file in found if file.is_file()]
    elif _HUB_NAME.fullmatch(name):
        return None
    else:
        raise ValueError(f"data.dataset = {name!r}: expected a name on the hub, or files that exist on this machine")
    _require_one_kind(name, [str(file) for file in found])
    return found


def _require_one_kind(name: str, files: Sequence[str]) -> None:
    kinds = {KINDS.get(suffix_of(file), f"no dataset ({file.rpartition('/')[2]})") for file in files}
    if kinds not in ({"parquet"}, {"json"}):
        received = " and ".join(sorted(kinds)) or "nothing"
        raise ValueError(f"data.dataset = {name!r}: expected parquet files or jsonl files, found {received}")


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
    identity = names | {"dataset_split": config.dataset_split, "files": f"{len(entries)} ({_digest(entries)})"}
    if files is not None:
        identity[CONTENT] = _digest(_samples(path) for path in files)
    return identity


def _digest(texts: Iterable[str]) -> str:
    return hashlib.blake2b("\n".join(texts).encode(), digest_size=8).hexdigest()


def _samples(path: Path) -> str:
    """A digest of blocks all over a file, the first and the last among them: who replaces it changes some of them, and
    it takes a terabyte no longer than a page. Times of change would refuse a copy."""
    digest = hashlib.blake2b(digest_size=8)
    with open(path, "rb") as file:
        last = max(file.seek(0, 2) - _BLOCK, 0)
        for k in range(_BLOCKS):
            file.seek(last * k // (_BLOCKS - 1))
            digest.update(file.read(_BLOCK))
    return digest.hexdigest()
