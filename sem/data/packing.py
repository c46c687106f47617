"""Documents packed end to end and cut into rows of one length, so that no row is padded but the last.

The stream of targets is every document's tokens followed by one ``EOS``; the stream of inputs is the same,
one place later, with an ``EOS`` in front. So a document's first token is predicted from the boundary before
it, and in one pass over the rows every token and every boundary is a target exactly once:

    targets   a   b  EOS  c   d  |  e   f  EOS -100 -100
    tokens   EOS  a   b  EOS  c  |  d   e   f  EOS  PAD
"""

from __future__ import annotations

import numpy as np

from sem.data.corpus import Documents

IGNORED_TARGET = -100
"""Target of the padding after the last document; the loss leaves it out."""


class PackedRows:
    """The rows of ``documents`` taken in ``order``, made when asked for: nothing is copied in advance.

    Args:
        documents: the text.
        seq_length: tokens per row, S.
        order: int64 `[n]`, a permutation of the documents; their own order by default.

    Example:
        >>> rows = PackedRows(Documents.from_bytes([b"ab", b"cde"]), seq_length=4)
        >>> tokens, targets = rows.batch(np.arange(len(rows)))
        >>> targets.tolist()
        [[97, 98, 257, 99], [100, 101, 257, -100]]
        >>> tokens.tolist()
        [[257, 97, 98, 257], [99, 100, 101, 257]]
    """

    def __init__(self, documents: Documents, seq_length: int, order: np.ndarray | None = None) -> None:
        self.documents = documents
        self.seq_length = seq_length
        self._tokenizer = documents.tokenizer
        self._order = np.arange(len(documents)) if order is None else order
        lengths = np.diff(documents.offsets)[self._order] + 1
        self._ends = np.cumsum(lengths)

    def __len__(self) -> int:
        return -(-count_tokens(self.documents) // self.seq_length)

    def batch(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Tokens and targets of the rows numbered ``rows`` `[B]`: two int64 arrays `[B, S]`."""
        stream = np.full((len(rows), self.seq_length + 1), self._tokenizer.pad, np.int64)
        targets = np.full((len(rows), self.seq_length), IGNORED_TARGET, np.int64)
        for line, target, row in zip(stream, targets, rows, strict=True):
            filled = self._fill(line, int(row) * self.seq_length)
            target[: filled - 1] = line[1:filled]
        return stream[:, :-1], targets

    def _fill(self, line: np.ndarray, begin: int) -> int:
        """Write the target stream from ``begin - 1`` on into ``line``, until one of them ends; returns how much."""
        if begin == 0:
            line[0], filled, position = self._tokenizer.eos, 1, 0
        else:
            filled, position = 0, begin - 1
        index = int(np.searchsorted(self._ends, position, side="right"))
        inside = position - (int(self._ends[index - 1]) if index else 0)
        while filled < len(line) and index < len(self._order):
            piece = self.documents[self._order[index]][inside : inside + len(line) - filled]
            line[filled : filled + len(piece)] = piece
            filled += len(piece)
            if filled < len(line):
                line[filled] = self._tokenizer.eos
                filled += 1
            index, inside = index + 1, 0
        return filled


def count_tokens(documents: Documents) -> int:
    """Targets in one pass: every token and one boundary per document."""
    return len(documents.data) + len(documents)
