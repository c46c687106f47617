"""Bytes as tokens: ids 0..255 are the bytes themselves, a few ids above them are marks."""

from __future__ import annotations

from collections.abc import Iterable

from sem.config import TOKENIZER_SIZES

BOS = 256
"""Reserved for the begin of a sequence; the packed rows do not use it."""
EOS = 257
"""Boundary between documents: it ends one and, as the first input of a row, begins the next."""
PAD = 258
"""Input where there is no text; never a target."""
VOCAB_SIZE = TOKENIZER_SIZES["bytes"]


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

    def encode(self, text: str | bytes) -> list[int]:
        """The bytes of ``text`` (str as UTF-8), without any boundary."""
        return list(text.encode() if isinstance(text, str) else text)

    def decode_bytes(self, ids: Iterable[int]) -> bytes:
        """The bytes among ``ids``; marks are left out.

        Raises:
            ValueError: a negative id.
        """
        return bytes(token for token in ids if token < 256)

    def decode(self, ids: Iterable[int]) -> str:
        """``ids`` as text; bytes that are not UTF-8 become U+FFFD."""
        return self.decode_bytes(ids).decode(errors="replace")
