import math

import numpy as np
import pytest

from sem.data import TrainLoader
from sem.data.synthetic import synthetic_corpus


@pytest.mark.parametrize("seq_length", [1, 32, 2048])
def test_there_is_text_for_every_row_length(seq_length):
    corpus = synthetic_corpus(seq_length)
    assert len(TrainLoader(corpus.validation, 1, seq_length)._rows) >= 4
    assert TrainLoader(corpus.train, 1, seq_length).rows_per_epoch >= 64


def test_the_seed_decides():
    texts = [synthetic_corpus(32, seed).train.fingerprint() for seed in (0, 0, 1)]
    assert texts[0] == texts[1] != texts[2]


def test_there_is_something_to_learn():
    """What a letter tells about the next one is far below the eight bits of a random byte."""
    text = synthetic_corpus(256).train.data
    pairs = np.zeros((256, 256))
    np.add.at(pairs, (text[:-1], text[1:]), 1)

    def entropy(counts):
        share = counts[counts > 0] / counts.sum()
        return -(share * np.log2(share)).sum()

    single, conditional = entropy(pairs.sum(0)), entropy(pairs) - entropy(pairs.sum(1))
    assert conditional < single - 0.5
    assert single < math.log2(27)
