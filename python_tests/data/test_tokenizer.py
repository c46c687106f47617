"""Byte tokens."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sem.data.tokenizer import BOS, EOS, PAD, VOCAB_SIZE, ByteTokenizer


@given(st.binary())
def test_bytes_survive(text: bytes) -> None:
    tokenizer = ByteTokenizer()
    assert tokenizer.decode_bytes(tokenizer.encode(text)) == text


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_text_survives(text: str) -> None:
    tokenizer = ByteTokenizer()
    assert tokenizer.decode(tokenizer.encode(text)) == text


def test_marks_are_left_out_and_broken_utf8_is_shown() -> None:
    tokenizer = ByteTokenizer()
    assert tokenizer.decode([BOS, 104, 105, EOS, PAD]) == "hi"
    assert tokenizer.decode([195]) == "\N{REPLACEMENT CHARACTER}"
    with pytest.raises(ValueError):
        tokenizer.decode([-1])


def test_marks_fit_the_vocabulary() -> None:
    assert len({BOS, EOS, PAD}) == 3
    assert all(256 <= mark < VOCAB_SIZE for mark in (BOS, EOS, PAD))
