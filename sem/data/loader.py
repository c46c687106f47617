"""Batches for training, endless and resumable to the row; batches for validation, always the same.

A batch is a dict:

- ``tokens``: int64 tensor `[B, S]`, the model's input;
- ``targets``: int64 tensor `[B, S]`, the next tokens; ``IGNORED_TARGET`` after the last document;
- ``bytes``: int, how many bytes of text the targets stand for, the denominator of bits per byte.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch

from sem.data.corpus import Documents
from sem.data.packing import PackedRows, count_tokens
from sem.data.tokenizer import ByteTokenizer, Tokenizer

_EVAL_ORDER_SEED = 0


class TrainLoader:
    """Endless batches over shuffled epochs; where it stands is one number.

    Each epoch shuffles the documents, packs them and shuffles the rows, from ``(seed, epoch)`` alone. Every
    byte is a target exactly once per epoch. A batch that an epoch's end cuts is completed from the next
    epoch, so all batches have ``batch_size`` rows and none is dropped.

    Of several ranks each serves its rows of one global batch of ``batch_size * world_size`` rows: joined in the order
    of the ranks, they are what a single loader with that batch size serves. The position counts global rows, so it is
    the same on all ranks and fits any number of them.

    Args:
        documents: the training text.
        batch_size: rows per batch, on each rank.
        seq_length: tokens per row.
        seed: of the order.
        rank, world_size: which process of a distributed run this is, of how many.

    Raises:
        ValueError: the text is too short for one row, a size is not positive, or the rank is not one of the world's.

    Example:
        >>> loader = TrainLoader(Documents.from_bytes([b"some text"] * 9), batch_size=2, seq_length=8)
        >>> state = (next(loader), loader.state_dict())[1]
        >>> expected = next(loader)["tokens"]
        >>> loader.load_state_dict(state)
        >>> torch.equal(next(loader)["tokens"], expected)
        True
    """

    def __init__(
        self,
        documents: Documents,
        batch_size: int,
        seq_length: int,
        seed: int = 0,
        *,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        _check_sizes(documents, batch_size, seq_length, "training")
        check_rank(rank, world_size)
        self.documents = documents
        self.batch_size = batch_size
        self.seq_length = seq_length
        self.seed = seed
        self.rank = rank
        self.world_size = world_size
        self._fingerprint = documents.fingerprint()
        self._position = 0
        self._start_epoch(0)

    @property
    def rows_per_epoch(self) -> int:
        """Rows of ``seq_length`` tokens that the documents fill, over all ranks."""
        return len(self._rows)

    @property
    def rows_served(self) -> int:
        """Rows that all ranks have been served."""
        return self._position

    @property
    def epoch(self) -> float:
        """Epochs served so far, with the fraction of the present one."""
        return self._position / self.rows_per_epoch

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return self

    def __next__(self) -> dict[str, Any]:
        position = self._position + self.rank * self.batch_size
        parts, missing = [], self.batch_size
        while missing:
            epoch, row = divmod(position, self.rows_per_epoch)
            if epoch != self._epoch:
                self._start_epoch(epoch)
            rows = self._row_order[row : row + missing]
            parts.append(self._rows.batch(rows))
            position += len(rows)
            missing -= len(rows)
        self._position += self.batch_size * self.world_size
        tokens, targets = (np.concatenate(side) for side in zip(*parts, strict=True))
        return as_batch(tokens, targets, self.documents.tokenizer)

    def close(self) -> None:
        """Nothing: there are no reader processes to end."""

    def state_dict(self) -> dict[str, Any]:
        """The position, and what must be the same for it to mean the same: plain int and str."""
        tokenizer = self.documents.tokenizer.identity
        return {
            "rows_served": self._position,
            "seq_length": self.seq_length,
            "seed": self.seed,
            "corpus": self._fingerprint,
            # Only where it is not bytes, which older states do not mention.
            **({} if tokenizer == ByteTokenizer.identity else {"tokenizer": tokenizer}),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue with the row after the last one served; ``batch_size``, ``rank`` and ``world_size`` may differ.

        Raises:
            ValueError: the state belongs to another text, tokenizer, row length or seed.
        """
        own = self.state_dict()
        names = ("corpus", "tokenizer", "seq_length", "seed")
        differing = [name for name in names if state.get(name) != own.get(name)]
        if differing:
            pairs = "; ".join(f"{name}: saved {state.get(name)}, now {own.get(name)}" for name in differing)
            raise ValueError(f"the saved data position does not fit this run's data: {pairs}")
        self._position = state["rows_served"]
        self._start_epoch(self._position // self.rows_per_epoch)

    def _start_epoch(self, epoch: int) -> None:
        random = np.random.default_rng([self.seed, epoch])
        self._epoch = epoch
        self._rows = PackedRows(self.documents, self.seq_length, random.permutation(len(self.documents)))
        self._row_order = random.permutation(len(self._rows))


class EvalLoader:
    """The same batches at every pass, each row once; the last batch may have fewer rows.

    Rows come in one fixed shuffled order, so the first few batches already are a fair sample of the text.

    Args:
        documents: the held-out text.
        batch_size: rows per batch.
        seq_length: tokens per row.

    Raises:
        ValueError: the text is too short for one row, or a size is not positive.

    Example:
        >>> loader = EvalLoader(Documents.from_bytes([b"some text"] * 9), batch_size=4, seq_length=8)
        >>> len(loader), sum(batch["bytes"] for batch in loader)
        (3, 81)
    """

    def __init__(self, documents: Documents, batch_size: int, seq_length: int) -> None:
        _check_sizes(documents, batch_size, seq_length, "validation")
        self.documents = documents
        self.batch_size = batch_size
        self.seq_length = seq_length
        self._rows = PackedRows(documents, seq_length)
        self._row_order = np.random.default_rng(_EVAL_ORDER_SEED).permutation(len(self._rows))

    def __len__(self) -> int:
        return -(-len(self._rows) // self.batch_size)

    @property
    def num_rows(self) -> int:
        """Rows of a whole pass."""
        return len(self._rows)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        for begin in range(0, len(self._rows), self.batch_size):
            tokens, targets = self._rows.batch(self._row_order[begin : begin + self.batch_size])
            yield as_batch(tokens, targets, self.documents.tokenizer)


def _check_sizes(documents: Documents, batch_size: int, seq_length: int, split: str) -> None:
    check_shape(batch_size, seq_length)
    tokens = count_tokens(documents)
    if tokens < seq_length:
        raise ValueError(
            f"the {split} text has {tokens} tokens: expected at least one row of seq_length = {seq_length}; "
            "give more text in data.paths, change data.validation_share or lower data.seq_length"
        )


def check_shape(batch_size: int, seq_length: int) -> None:
    """Raise ``ValueError`` unless batches can have this shape."""
    for name, value in (("batch_size", batch_size), ("seq_length", seq_length)):
        if value < 1:
            raise ValueError(f"{name} = {value}: expected an integer >= 1")


def check_rank(rank: int, world_size: int) -> None:
    """Raise ``ValueError`` unless ``rank`` is one of the world's."""
    if not 0 <= rank < world_size:
        raise ValueError(f"rank = {rank}: expected an integer from 0 to world_size - 1 = {world_size - 1}")


def as_batch(tokens: np.ndarray, targets: np.ndarray, tokenizer: Tokenizer) -> dict[str, Any]:
    """Rows as a batch, see the module."""
    return {
        "tokens": torch.from_numpy(np.ascontiguousarray(tokens)),
        "targets": torch.from_numpy(targets),
        "bytes": int(tokenizer.token_bytes[targets[targets >= 0]].sum()),
    }
