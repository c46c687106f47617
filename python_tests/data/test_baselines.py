"""Counting models against a plain count, and the figures on real text."""

from __future__ import annotations

import zlib
from collections import Counter

import numpy as np
import pytest

from sem.data.baselines import ByteModel, baselines
from sem.data.corpus import Corpus, Documents, load_corpus


def plain_probability(text: bytes, context: bytes, byte: int, discount: float) -> float:
    """The formula of the class, with a scan of the text for each term."""
    followers = Counter(
        text[place + len(context)]
        for place in range(len(text) - len(context))
        if text[place : place + len(context)] == context
    )
    shorter = plain_probability(text, context[1:], byte, discount) if context else 1 / 256
    total = sum(followers.values())
    if not total:
        return shorter
    return max(followers[byte] - discount, 0) / total + discount * len(followers) / total * shorter


@pytest.mark.parametrize("order", [0, 1, 2, 3])
def test_probabilities_follow_the_formula(order: int) -> None:
    random = np.random.default_rng(order)
    text = random.integers(97, 101, 300).astype(np.uint8)
    held_out = random.integers(97, 103, 40).astype(np.uint8)
    received = ByteModel(text, order, discount=0.6).probabilities(held_out)
    padded = bytes(order) + held_out.tobytes()
    expected = [
        plain_probability(text.tobytes(), padded[place : place + order], padded[place + order], 0.6)
        for place in range(len(held_out))
    ]
    np.testing.assert_allclose(received, expected, rtol=1e-12)


@pytest.mark.parametrize("context", [b"ab", b"a?", b"??"])
def test_probabilities_of_all_bytes_sum_to_one(context: bytes) -> None:
    model = ByteModel(np.frombuffer(b"abracadabra, abracadabra", np.uint8), order=2)
    total = 0.0
    for byte in range(256):
        total += model.probabilities(np.frombuffer(context + bytes([byte]), np.uint8))[-1]
    assert total == pytest.approx(1, rel=1e-12)


def test_uniform_noise_costs_eight_bits() -> None:
    random = np.random.default_rng(0)
    text, held_out = (random.integers(0, 256, 200_000).astype(np.uint8) for _ in range(2))
    assert ByteModel(text, order=0).bits_per_byte(held_out) == pytest.approx(8, abs=0.01)


@pytest.mark.parametrize("order", [-1, 7])
def test_orders_that_do_not_fit_are_refused(order: int) -> None:
    with pytest.raises(ValueError, match=f"order = {order}: expected an integer from 0 to 6"):
        ByteModel(np.zeros(100, np.uint8), order)
    with pytest.raises(ValueError, match="text of 3 bytes: expected more than order = 3"):
        ByteModel(np.zeros(3, np.uint8), 3)


def test_longer_contexts_win_on_real_text() -> None:
    corpus = load_corpus()
    scores = baselines(corpus, train_bytes=1_000_000)
    assert list(scores) == ["order_2", "order_3", "zlib_9"]
    assert 1.5 < scores["order_3"] < scores["order_2"] < 3.5
    held_out = corpus.validation.data.tobytes()
    assert scores["zlib_9"] == 8 * len(zlib.compress(held_out, 9)) / len(held_out)


def test_only_the_first_bytes_are_counted() -> None:
    held_out = Documents.from_bytes([b"the same words " * 20])
    known = Corpus(Documents.from_bytes([b"the same words " * 20, b"zzz" * 500]), held_out)
    beyond = Corpus(Documents.from_bytes([b"zzz" * 100, b"the same words " * 20]), held_out)
    assert baselines(known, 300)["order_3"] < 1 < baselines(beyond, 300)["order_3"]
