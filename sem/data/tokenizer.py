"""Text to token ids and back: bytes as they are, or the byte-level vocabulary of a file.

Ids of :class:`ByteTokenizer` 0..255 are the bytes themselves, a few above them are marks. What a file holds is in
:mod:`sem.data.file_tokenizer`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np

from sem.config import SEMConfig
from sem.config_sections import TOKENIZER_SIZES
from sem.files import write_text

BOS = 256
"""Reserved for the begin of a sequence; the packed rows do not use it."""
EOS = 257
"""Boundary between documents: it ends one and, as the first input of a row, begins the next."""
PAD = 258
"""Input where there is no text; never a target."""
VOCAB_SIZE = TOKENIZER_SIZES["bytes"]
TOKENIZER_FILE = "tokenizer.json"
"""Name of a tokenizer's copy in the folder of the run it was used for."""


class Tokenizer(Protocol):
    """What packing, training and generation need of a tokenizer.

    Attributes:
        vocab_size: ids are 0 to ``vocab_size - 1``.
        eos: boundary between documents.
        pad: input where there is no text; never a target.
        token_bytes: int64 `[vocab_size]`, how many bytes of text each token stands for; 0 for marks.
        identity: equal only for tokenizers that give equal ids.
        content: what to write into a file to keep it; None where there is nothing to keep.
    """

    @property
    def vocab_size(self) -> int: ...

    @property
    def eos(self) -> int: ...

    @property
    def pad(self) -> int: ...

    @property
    def token_bytes(self) -> np.ndarray: ...

    @property
    def identity(self) -> str: ...

    @property
    def content(self) -> str | None: ...

    def encode(self, text: str | bytes) -> list[int]:
        """The ids of ``text``, without any boundary."""

    def encode_batch(self, texts: Sequence[str | bytes]) -> list[list[int]]:
        """The ids of each text, as :meth:`encode` gives them."""

    def decode_bytes(self, ids: Iterable[int]) -> bytes:
        """The bytes that ``ids`` stand for; marks are left out."""

    def decode(self, ids: Iterable[int]) -> str:
        """``ids`` as text; bytes that are not UTF-8 become U+FFFD."""


class ByteTokenizer:
    """UTF-8 bytes to ids and back; no text is unknown to it.

    Example:
        >>> tokenizer = ByteTokenizer()
        >>> tokenizer.encode("né")
        [110, 195, 169]
        >>> tokenizer.decode([110, 195, 169, 257])
        'né'
    """

    vocab_size = VOCAB_SIZE
    eos = EOS
    pad = PAD
    token_bytes = (np.arange(VOCAB_SIZE) < 256).astype(np.int64)
    identity = "bytes"
    content = None

    def encode(self, text: str | bytes) -> list[int]:
        """The bytes of ``text`` (str as UTF-8), without any boundary."""
        return list(text.encode() if isinstance(text, str) else text)

    def encode_batch(self, texts: Sequence[str | bytes]) -> list[list[int]]:
        """The ids of each text."""
        return [self.encode(text) for text in texts]

    def decode_bytes(self, ids: Iterable[int]) -> bytes:
        """The bytes among ``ids``; marks are left out.

        Raises:
            ValueError: a negative id.
        """
        return bytes(token for token in ids if token < 256)

    def decode(self, ids: Iterable[int]) -> str:
        """``ids`` as text; bytes that are not UTF-8 become U+FFFD."""
        return self.decode_bytes(ids).decode(errors="replace")


def load_tokenizer(name: str | Path) -> Tokenizer:
    """The tokenizer called ``name``: ``"bytes"``, or a file that the tokenizers library reads.

    Raises:
        ValueError: the file is missing, or is no byte-level tokenizer with a boundary token.
        ImportError: a file is named and the tokenizers library is not installed.

    Example:
        >>> load_tokenizer("bytes").vocab_size
        260
    """
    if str(name) == ByteTokenizer.identity:
        return ByteTokenizer()
    from sem.data.file_tokenizer import FileTokenizer

    return FileTokenizer.from_file(name)


def tokenizer_of(config: SEMConfig, folder: str | Path | None = None) -> Tokenizer:
    """The tokenizer that ``config`` names, checked against its model.

    Args:
        config: ``data.tokenizer``, ``model.vocab_size`` and ``training.output_dir`` are used.
        folder: a run's folder; its own copy of the tokenizer is taken before the file that ``config`` names. Without
            it, the copy in ``training.output_dir`` stands in for a file that is not there any more.

    Raises:
        ValueError: as :func:`load_tokenizer`; or the tokenizer has more ids than the model.
    """
    name = config.data.tokenizer
    if name == ByteTokenizer.identity:
        return ByteTokenizer()
    copy = Path(config.training.output_dir if folder is None else folder, TOKENIZER_FILE)
    use_copy = copy.exists() and (folder is not None or not Path(name).exists())
    tokenizer = load_tokenizer(copy if use_copy else name)
    if tokenizer.vocab_size > config.model.vocab_size:
        raise ValueError(
            f"model.vocab_size = {config.model.vocab_size}: "
            f"expected at least {tokenizer.vocab_size}, the size of data.tokenizer = {name!r}"
        )
    return tokenizer


def keep_tokenizer(tokenizer: Tokenizer, folder: str | Path) -> None:
    """Copy a tokenizer that came from a file into a run's folder, so that the run does not depend on the file."""
    if tokenizer.content is not None:
        write_text(Path(folder, TOKENIZER_FILE), tokenizer.content)
