"""Bits per byte that counting and compressing reach on the held-out text: what a model has to beat."""

from __future__ import annotations

import zlib

import numpy as np

from sem.data.corpus import Corpus

_DISCOUNT = 0.75


class ByteModel:
    """Probability of a byte after the ``order`` bytes before it, counted, interpolated with shorter contexts.

    Absolute discounting: with ``n`` the counts in the training text and ``h'`` the context without its oldest
    byte,

        P(c | h) = max(n(hc) - d, 0) / n(h) + d * (number of bytes seen after h) / n(h) * P(c | h')

    down to the uniform distribution; a context never seen leaves P(c | h'). Each P(. | h) sums to one (Ney,
    Essen and Kneser 1994, "On structuring probabilistic dependences in stochastic language modelling").

    Args:
        text: uint8 `[N]`, the training text.
        order: bytes of context, 0 to 6.
        discount: d, between 0 and 1.

    Raises:
        ValueError: an order outside of 0 to 6, or a text that is not longer than it.

    Example:
        >>> text = np.frombuffer(b"ab" * 500, np.uint8)
        >>> ByteModel(text, order=1).bits_per_byte(text) < 0.1
        True
    """

    def __init__(self, text: np.ndarray, order: int, discount: float = _DISCOUNT) -> None:
        if not 0 <= order <= 6:
            raise ValueError(f"order = {order}: expected an integer from 0 to 6")
        if len(text) <= order:
            raise ValueError(f"text of {len(text)} bytes: expected more than order = {order}")
        self.order = order
        self.discount = discount
        self._levels = [_Counts(_grams(text, length)) for length in range(order + 1)]

    def probabilities(self, text: np.ndarray) -> np.ndarray:
        """float64 `[N]`: probability of each byte of uint8 ``text`` given those before it.

        The first bytes' missing context is filled with NUL bytes.
        """
        padded = np.concatenate([np.zeros(self.order, np.uint8), text])
        probability = np.full(len(text), 1 / 256)
        for length, counts in enumerate(self._levels):
            grams = _grams(padded, length)[self.order - length :]
            seen, total, followers = counts.look_up(grams)
            total = np.maximum(total, 1)
            kept = np.where(followers > 0, self.discount * followers / total, 1.0)
            probability = np.maximum(seen - self.discount, 0) / total + kept * probability
        return probability

    def bits_per_byte(self, text: np.ndarray) -> float:
        """Mean code length of ``text`` under this model."""
        return float(-np.log2(self.probabilities(text)).mean())


def baselines(corpus: Corpus, train_bytes: int = 3_000_000) -> dict[str, float]:
    """Bits per byte on the held-out text: byte models of order 2 and 3, and zlib at level 9.

    Args:
        corpus: the byte models count the first ``train_bytes`` of ``corpus.train``; all score
            ``corpus.validation``. zlib sees only the held-out text.

    Returns:
        ``{"order_2": ..., "order_3": ..., "zlib_9": ...}``; a few seconds for megabytes.

    Example:
        >>> from sem.data.corpus import Documents
        >>> text = Documents.from_bytes([b"to be or not to be, " * 50])
        >>> sorted(baselines(Corpus(text, text)))
        ['order_2', 'order_3', 'zlib_9']
    """
    train, held_out = corpus.train.data[:train_bytes], corpus.validation.data
    scores = {f"order_{order}": ByteModel(train, order).bits_per_byte(held_out) for order in (2, 3)}
    return scores | {"zlib_9": 8 * len(zlib.compress(held_out.data, 9)) / len(held_out)}


class _Counts:
    """How often each gram occurs, and for each context how often and before how many different bytes."""

    def __init__(self, grams: np.ndarray) -> None:
        self._grams, self._seen = np.unique(grams, return_counts=True)
        self._contexts, first = np.unique(self._grams >> 8, return_index=True)
        self._total = np.add.reduceat(self._seen, first)
        self._followers = np.diff(first, append=len(self._grams))

    def look_up(self, grams: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """``(n(hc), n(h), number of bytes seen after h)`` of each gram ``hc``, 0 where never seen."""
        context, known = _find(self._contexts, grams >> 8)
        gram, seen = _find(self._grams, grams)
        return self._seen[gram] * seen, self._total[context] * known, self._followers[context] * known


def _find(keys: np.ndarray, wanted: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Place of each wanted value in sorted ``keys``, and whether it is there."""
    place = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
    return place, keys[place] == wanted


def _grams(text: np.ndarray, length: int) -> np.ndarray:
    """int64 `[N - length]`: each byte with the ``length`` bytes before it as one base-256 number."""
    size = len(text) - length
    grams = np.zeros(size, np.int64)
    for begin in range(length + 1):
        grams = grams << 8 | text[begin : begin + size]
    return grams
