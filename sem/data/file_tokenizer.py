"""Byte-level vocabularies in files of the tokenizers library: reading one, and training one.

Only byte-level tokenizers without a normalizer that changes text are taken: every text is then the exact
concatenation of its tokens' bytes, so generated text can be decoded token by token and bits per byte count the bytes
of the text itself, whatever the vocabulary.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sem.extras import how_to_install
from sem.files import write_text

EOS_TOKEN, PAD_TOKEN = "<|endoftext|>", "<|pad|>"
EOS_NAMES = (EOS_TOKEN, "<|end_of_text|>", "<eos>", "</s>")
"""Special tokens that end a document; the first one in a file is taken."""
PAD_NAMES = (PAD_TOKEN, "<pad>", "[PAD]")
"""Special tokens that fill rows; where a file has none, the end of a document fills them too."""
MIN_VOCAB_SIZE = 258
"""256 bytes and two marks."""
_PROBE = "\tExactly  this: naïve — 漢字 🙂\r\n\n x1234 'll"


class FileTokenizer:
    """The tokenizer of one file; its content travels with it when it is pickled.

    Args:
        content: the file's JSON text.
        name: what to call it in errors.

    Raises:
        ValueError: it is no byte-level tokenizer, changes text, or has no end of document among its special tokens.
        ImportError: the tokenizers library is not installed.
    """

    def __init__(self, content: str, name: str = "tokenizer") -> None:
        self.content = content
        self.name = name
        self.identity = hashlib.blake2b(content.encode(), digest_size=16).hexdigest()
        self._tokenizer = _parse(content, name)
        entries = json.loads(content)
        special = {token["content"]: token["id"] for token in entries.get("added_tokens", []) if token["special"]}
        eos, pad = _first(special, EOS_NAMES), _first(special, PAD_NAMES)
        if eos is None:
            raise ValueError(
                f"data.tokenizer = {name!r}: expected an end of document among its special tokens, one of "
                f"{', '.join(EOS_NAMES)}; it has {', '.join(special) or 'none'}"
            )
        self.eos = eos
        self.pad = eos if pad is None else pad
        self._pieces = _token_bytes(self._tokenizer, set(special.values()), name)
        self.vocab_size = len(self._pieces)
        self.token_bytes = np.array([len(piece) for piece in self._pieces], np.int64)
        if self.decode(self.encode(_PROBE)) != _PROBE:
            raise ValueError(
                f"data.tokenizer = {name!r}: expected a byte-level tokenizer that gives text back unchanged, "
                "this one changes it (a normalizer, or a space put in front)"
            )

    @classmethod
    def from_file(cls, path: str | Path) -> FileTokenizer:
        """Read ``path``; see the class for errors."""
        try:
            content = Path(path).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or "no UTF-8 text"
            raise ValueError(
                f"data.tokenizer = {str(path)!r}: expected 'bytes' or a tokenizer file, cannot read it ({reason})"
            ) from None
        return cls(content, str(path))

    def __reduce__(self) -> tuple[Any, ...]:
        return FileTokenizer, (self.content, self.name)

    def encode(self, text: str | bytes) -> list[int]:
        """The ids of ``text`` (bytes as UTF-8, what is not becomes U+FFFD), without any boundary."""
        return self.encode_batch([text])[0]

    def encode_batch(self, texts: Sequence[str | bytes]) -> list[list[int]]:
        """The ids of each text; uses the machine's cores."""
        encodings = self._tokenizer.encode_batch_fast([_as_text(text) for text in texts], add_special_tokens=False)
        return [encoding.ids for encoding in encodings]

    def decode_bytes(self, ids: Iterable[int]) -> bytes:
        """The bytes that ``ids`` stand for; marks, and ids beyond the vocabulary, stand for none."""
        return b"".join(self._pieces[token] for token in ids if 0 <= token < self.vocab_size)

    def decode(self, ids: Iterable[int]) -> str:
        """``ids`` as text; bytes that are not UTF-8 become U+FFFD."""
        return self.decode_bytes(ids).decode(errors="replace")

    def save(self, path: str | Path) -> None:
        """Write the file's content, making folders where they are missing."""
        write_text(path, self.content)


def train_tokenizer(texts: Iterable[str], vocab_size: int, *, show_progress: bool = False) -> FileTokenizer:
    """Byte-pair encoding on bytes, learned from ``texts``; equal texts give equal files.

    Ids 0 and 1 are the end of a document and the padding, then come the 256 bytes and the merges. A text with too few
    pairs that occur twice gives fewer ids than asked for.

    Raises:
        ValueError: ``vocab_size`` does not hold the bytes and the marks.
        ImportError: the tokenizers library is not installed.

    Example:
        >>> tokenizer = train_tokenizer(["to be or not to be"] * 2, 262)
        >>> len(tokenizer.encode("to be")) < 5, tokenizer.decode(tokenizer.encode("to bé"))
        (True, 'to bé')
    """
    if vocab_size < MIN_VOCAB_SIZE:
        raise ValueError(f"vocab_size = {vocab_size}: expected at least {MIN_VOCAB_SIZE}, 256 bytes and two marks")
    library = _library()
    byte_level = library.pre_tokenizers.ByteLevel
    tokenizer = library.Tokenizer(library.models.BPE())
    tokenizer.pre_tokenizer = byte_level(add_prefix_space=False)
    tokenizer.decoder = library.decoders.ByteLevel()
    trainer = library.trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[EOS_TOKEN, PAD_TOKEN],
        initial_alphabet=sorted(byte_level.alphabet()),
        show_progress=show_progress,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return FileTokenizer(tokenizer.to_str(pretty=True))


def _library() -> Any:
    try:
        import tokenizers
    except ImportError:
        raise ImportError(f"a tokenizer file needs the tokenizers library: {how_to_install('hub')}") from None
    return tokenizers


def _parse(content: str, name: str) -> Any:
    library = _library()
    try:
        tokenizer = library.Tokenizer.from_str(content)
    except Exception as error:  # the library raises plain Exception
        raise ValueError(f"data.tokenizer = {name!r}: expected a tokenizer file ({error})") from None
    tokenizer.no_truncation()
    tokenizer.no_padding()
    # A document that quotes the name of a mark must not end there.
    tokenizer.encode_special_tokens = True
    return tokenizer


def _token_bytes(tokenizer: Any, special: set[int], name: str) -> list[bytes]:
    """The bytes of every id; none for marks and for ids that are not taken."""
    alphabet = dict(byte_letters())
    added = tokenizer.get_added_tokens_decoder()
    vocabulary = tokenizer.get_vocab(with_added_tokens=True)
    pieces = [b""] * (max(vocabulary.values()) + 1)
    for token, index in vocabulary.items():
        if index in special:
            continue
        if index in added:
            pieces[index] = token.encode()
            continue
        try:
            pieces[index] = bytes(alphabet[letter] for letter in token)
        except KeyError:
            raise ValueError(
                f"data.tokenizer = {name!r}: expected a byte-level vocabulary, it has the token {token!r}"
            ) from None
    return pieces


def byte_letters() -> Iterator[tuple[str, int]]:
    """The letter that byte-level vocabularies write for each byte: itself where it is visible, else one from 256 on."""
    visible = {*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)}
    invisible = 0
    for byte in range(256):
        if byte in visible:
            yield chr(byte), byte
        else:
            yield chr(256 + invisible), byte
            invisible += 1


def _first(special: dict[str, int], names: Iterable[str]) -> int | None:
    return next((special[name] for name in names if name in special), None)


def _as_text(text: str | bytes) -> str:
    return text if isinstance(text, str) else text.decode(errors="replace")
