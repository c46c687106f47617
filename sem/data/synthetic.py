"""Text that is made up: needs no files, and has something to learn in it."""

from __future__ import annotations

import numpy as np

from sem.data.corpus import Corpus, Documents

_WORDS = 64
_LETTERS = np.frombuffer(b"abcdefghijklmnopqrstuvwxyz", np.uint8)


def synthetic_corpus(seq_length: int, seed: int = 0) -> Corpus:
    """Documents of random words from a vocabulary of 64, the frequent ones far more often than the rare ones.

    Which word follows is drawn without regard to what came before, so the letters within a word and the words'
    frequencies are all there is to learn. The same arguments give the same text.

    Args:
        seq_length: tokens per row of the run; the held-out text fills at least 4 rows, the training text 64, with any
            tokenizer of up to 16 bytes per token.
        seed: of the words and the draw.

    Example:
        >>> corpus = synthetic_corpus(seq_length=32)
        >>> corpus.train.num_bytes >= 64 * 32 and corpus.validation.num_bytes >= 4 * 32
        True
    """
    random = np.random.default_rng(seed)
    words = [random.choice(_LETTERS, random.integers(2, 9)).tobytes() for _ in range(_WORDS)]
    frequency = 1.0 / np.arange(1, _WORDS + 1)
    frequency /= frequency.sum()

    def documents(total: int) -> Documents:
        # a document is a row long, with a word and a space taking 6 bytes on the average
        count = max(64, seq_length // 6)
        made: list[bytes] = []
        size = 0
        while size < total:
            made.append(b" ".join(words[index] for index in random.choice(_WORDS, count, p=frequency)))
            size += len(made[-1])
        return Documents.from_bytes(made)

    return Corpus(train=documents(64 * 16 * seq_length), validation=documents(4 * 16 * seq_length))
