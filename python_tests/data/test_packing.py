"""Rows of one length from documents of any."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from sem.data.corpus import Documents
from sem.data.packing import IGNORED_TARGET, PackedRows, count_tokens
from sem.data.tokenizer import EOS, PAD

some_documents = st.lists(st.binary(max_size=20), min_size=1, max_size=12)


def plain_stream(parts: list[bytes], order: np.ndarray) -> list[int]:
    """The target stream, written the long way."""
    return [token for index in order for token in [*parts[index], EOS]]


@given(some_documents, st.integers(1, 9), st.randoms(use_true_random=False))
def test_rows_are_the_stream_cut_into_pieces(parts: list[bytes], seq_length: int, random) -> None:
    order = np.array(random.sample(range(len(parts)), len(parts)))
    rows = PackedRows(Documents.from_bytes(parts), seq_length, order)
    tokens, targets = rows.batch(np.arange(len(rows)))
    assert tokens.shape == targets.shape == (len(rows), seq_length)
    assert tokens.dtype == targets.dtype == np.int64
    stream = plain_stream(parts, order)
    padding = targets.size - len(stream)
    assert 0 <= padding < seq_length
    assert targets.ravel().tolist() == stream + [IGNORED_TARGET] * padding
    assert tokens.ravel().tolist() == ([EOS, *stream] + [PAD] * padding)[: tokens.size]


@given(some_documents, st.integers(1, 9), st.randoms(use_true_random=False))
def test_a_row_does_not_depend_on_the_others(parts: list[bytes], seq_length: int, random) -> None:
    rows = PackedRows(Documents.from_bytes(parts), seq_length)
    together = rows.batch(np.arange(len(rows)))
    row = random.randrange(len(rows))
    for alone, all_rows in zip(rows.batch(np.array([row])), together, strict=True):
        assert alone[0].tolist() == all_rows[row].tolist()


def test_tokens_are_bytes_and_boundaries() -> None:
    assert count_tokens(Documents.from_bytes([b"ab", b"", b"cde"])) == 8
