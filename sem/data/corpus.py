"""Where text comes from: the running Python's own library source, or the user's files; split for validation.

Everything is read as bytes into one buffer per split, so a corpus takes its own size in memory and no more.
Files are split by a hash: of the path inside the searched folder (or the library), which outlives edits and
new releases, and of the contents for a file that is named alone or by a glob. Where the folder itself lies
plays no part, so every machine splits alike. Two copies of a file never stand on both sides: the second is
dropped. Documents are kept in the order of the hashes, which is as good as shuffled.
"""

from __future__ import annotations

import glob
import hashlib
import os
import sysconfig
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sem.data.tokenizer import ByteTokenizer, Tokenizer

_STDLIB_LEFT_OUT = {"encodings", "idle_test", "idlelib", "lib2to3", "pydoc_data", "test", "tests"}
_NOT_SEARCHED = {"__pycache__", "dist-packages", "node_modules", "site-packages"}
_BINARY_PROBE_BYTES = 8192
_BATCH_DOCUMENTS = 64


@dataclass(frozen=True)
class Documents:
    """Documents end to end in one buffer, as bytes or as the ids of another tokenizer.

    Attributes:
        data: `[N]`, all ids; uint8 for bytes, else the smallest of uint16 and uint32 that holds the vocabulary.
        offsets: int64 `[n + 1]`; document ``i`` is ``data[offsets[i]:offsets[i + 1]]``.
        tokenizer: what the ids are of.
    """

    data: np.ndarray
    offsets: np.ndarray
    tokenizer: Tokenizer = ByteTokenizer()

    @classmethod
    def from_bytes(cls, documents: Iterable[bytes]) -> Documents:
        """Join byte strings, in their order.

        Example:
            >>> Documents.from_bytes([b"ab", b"c"]).offsets.tolist()
            [0, 2, 3]
        """
        buffer, ends = bytearray(), [0]
        for document in documents:
            buffer += document
            ends.append(len(buffer))
        return cls(np.frombuffer(buffer, np.uint8), np.asarray(ends, np.int64))

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, index: int) -> np.ndarray:
        """The ids of document ``index``, a view."""
        if not 0 <= index < len(self):
            raise IndexError(f"document {index} of {len(self)}")
        return self.data[self.offsets[index] : self.offsets[index + 1]]

    def encoded(self, tokenizer: Tokenizer) -> Documents:
        """These documents of bytes as ids of ``tokenizer``; a bar on a terminal shows how far it is.

        Example:
            >>> documents = Documents.from_bytes([b"ab"])
            >>> documents.encoded(ByteTokenizer()) is documents
            True
        """
        if tokenizer.identity == self.tokenizer.identity:
            return self
        from rich.console import Console
        from rich.progress import track

        console = Console(stderr=True)
        dtype = np.uint16 if tokenizer.vocab_size <= 2**16 else np.uint32
        parts: list[np.ndarray] = []
        batches = range(0, len(self), _BATCH_DOCUMENTS)
        for begin in track(batches, "tokenizing", console=console, transient=True, disable=not console.is_terminal):
            texts = [self[index].tobytes() for index in range(begin, min(begin + _BATCH_DOCUMENTS, len(self)))]
            parts += [np.array(ids, dtype) for ids in tokenizer.encode_batch(texts)]
        offsets = np.cumsum([0, *map(len, parts)], dtype=np.int64)
        return Documents(np.concatenate([np.empty(0, dtype), *parts]), offsets, tokenizer)

    @property
    def num_bytes(self) -> int:
        """Bytes of text that the ids stand for."""
        return int(self.tokenizer.token_bytes[self.data].sum())

    def fingerprint(self) -> str:
        """A digest of every id and boundary: equal only for equal documents in equal order."""
        digest = hashlib.blake2b(self.offsets.astype("<i8").tobytes(), digest_size=16)
        digest.update(self.data.data)
        return digest.hexdigest()


@dataclass(frozen=True)
class Corpus:
    """A training and a held-out set of documents."""

    train: Documents
    validation: Documents

    def encoded(self, tokenizer: Tokenizer) -> Corpus:
        """Both sets as ids of ``tokenizer``."""
        return Corpus(self.train.encoded(tokenizer), self.validation.encoded(tokenizer))


def load_corpus(paths: Sequence[str | Path] = (), *, corpus: str = "stdlib", validation_share: float = 0.05) -> Corpus:
    """Read text and hold a share of it out.

    Args:
        paths: files (any content), folders (searched for text files, hidden ones left out) and globs (``**``
            crosses folders). Without any, the built-in corpus.
        corpus: ``"stdlib"``: the ``.py`` files of the running interpreter's standard library, without tests,
            tables and programs that come with it: about 9 MB.
        validation_share: share of the files held out, at least one. A single file is cut instead, at the end
            of a line, and its last part held out.

    Raises:
        ValueError: a path that is not there, or no text in all of them.

    Example:
        >>> corpus = load_corpus()
        >>> corpus.train.num_bytes > 10 * corpus.validation.num_bytes > 0
        True
    """
    if not 0 < validation_share < 1:
        raise ValueError(f"data.validation_share = {validation_share}: expected a number > 0 and < 1")
    if isinstance(paths, (str, Path)):
        paths = (paths,)
    files = _named_files(paths) if paths else _stdlib_files(corpus)
    by_content: dict[int, tuple[int, int, Path]] = {}
    for path, name in files.items():
        if content := _read(path):
            digest = _hash(content)
            entry = (digest if name is None else _hash(name.encode()), digest, path)
            by_content[digest] = min(entry, by_content.get(digest, entry))
    if not by_content:
        raise ValueError(f"data.paths = {[str(path) for path in paths]}: expected text, found only empty files")
    entries = sorted(by_content.values())
    if len(entries) == 1:
        return _cut(_read(entries[0][2]), validation_share)
    count = sum(key < validation_share * 2.0**64 for key, _, _ in entries)
    count = min(max(count, 1), len(entries) - 1)
    return Corpus(
        train=Documents.from_bytes(_read(path) for _, _, path in entries[count:]),
        validation=Documents.from_bytes(_read(path) for _, _, path in entries[:count]),
    )


def _cut(text: bytes, validation_share: float) -> Corpus:
    """Hold out the end of one text, from a line's begin where one is near."""
    position = min(max(round(len(text) * (1 - validation_share)), 1), len(text) - 1)
    line = text.rfind(b"\n", 0, position) + 1
    if len(text) - line < 2 * (len(text) - position) and line:
        position = line
    return Corpus(Documents.from_bytes([text[:position]]), Documents.from_bytes([text[position:]]))


def _stdlib_files(corpus: str) -> dict[Path, str | None]:
    """The library's source files, each with its path inside the library."""
    if corpus != "stdlib":
        raise ValueError(f"data.corpus = {corpus!r}: expected one of stdlib")
    root = Path(sysconfig.get_paths()["stdlib"])
    files: dict[Path, str | None] = {
        path: name
        for path, name in _walk(root, _NOT_SEARCHED | _STDLIB_LEFT_OUT)
        if path.suffix == ".py" and not path.name.startswith("_sysconfigdata")
    }
    if not files:
        raise ValueError(f"data.corpus = 'stdlib': no library source in {root}; name your own text in data.paths")
    return files


def _named_files(paths: Iterable[str | Path]) -> dict[Path, str | None]:
    """The files that paths, folders and globs stand for; those from a folder with their path inside it."""
    files: dict[Path, str | None] = {}
    missing = []
    for name in map(str, paths):
        path = Path(name).expanduser()
        if path.is_dir():
            files.update((file, inside) for file, inside in _walk(path, _NOT_SEARCHED) if _is_text(file))
            continue
        found = [path] if path.exists() else map(Path, glob.glob(str(path), recursive=True))
        found = [match for match in found if match.is_file()]
        for match in found:
            files.setdefault(match, None)
        if not found:
            missing.append(name)
    if missing:
        raise ValueError(f"data.paths: no such file, folder or glob match: {', '.join(missing)}")
    if not files:
        raise ValueError(f"data.paths = {[str(path) for path in paths]}: expected text, found no text file")
    return files


def _walk(root: Path, left_out: set[str]) -> Iterator[tuple[Path, str]]:
    """Every regular file under ``root`` with its path inside; not hidden ones nor folders in ``left_out``."""
    for folder, subfolders, names in os.walk(root):
        subfolders[:] = [name for name in subfolders if name not in left_out and not name.startswith(".")]
        for name in names:
            path = Path(folder, name)
            if not name.startswith(".") and path.is_file():
                yield path, path.relative_to(root).as_posix()


def _is_text(path: Path) -> bool:
    """Whether the file's first bytes hold no NUL, which is how git tells text from binary."""
    return b"\0" not in _read(path, _BINARY_PROBE_BYTES)


def _read(path: Path, size: int = -1) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(size)
    except OSError as error:
        raise ValueError(f"data.paths: cannot read {path} ({error.strerror})") from None


def _hash(content: bytes) -> int:
    """64 bits, the same on every machine."""
    return int.from_bytes(hashlib.blake2b(content, digest_size=8).digest(), "big")
