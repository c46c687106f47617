"""Batches: complete, disjoint, shuffled, resumable to the row."""

from __future__ import annotations

import json
from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sem.config import SEMConfig
from sem.data.build import build_loaders
from sem.data.corpus import Corpus, Documents
from sem.data.loader import EvalLoader, TrainLoader
from sem.data.packing import IGNORED_TARGET, count_tokens
from sem.data.tokenizer import EOS

SEQ_LENGTH = 16


@pytest.fixture
def documents() -> Documents:
    """Thirty documents of unlike lengths, none of them a multiple of a row."""
    random = np.random.default_rng(0)
    return Documents.from_bytes(random.bytes(int(length)) for length in random.integers(0, 200, 30))


def bigrams(tokens: torch.Tensor, targets: torch.Tensor) -> Counter:
    """How often each (input, target) pair occurs, padding left out."""
    kept = targets != IGNORED_TARGET
    return Counter(zip(tokens[kept].tolist(), targets[kept].tolist(), strict=True))


def one_epoch(loader: TrainLoader) -> tuple[torch.Tensor, torch.Tensor]:
    batches = [next(loader) for _ in range(loader.rows_per_epoch // loader.batch_size)]
    return torch.cat([batch["tokens"] for batch in batches]), torch.cat([batch["targets"] for batch in batches])


def test_batches_have_the_promised_form(documents: Documents) -> None:
    batch = next(TrainLoader(documents, 4, SEQ_LENGTH))
    assert set(batch) == {"tokens", "targets", "bytes"}
    for name in ("tokens", "targets"):
        assert batch[name].shape == (4, SEQ_LENGTH)
        assert batch[name].dtype == torch.int64
        assert batch[name].is_contiguous()
    targets = batch["targets"]
    assert batch["bytes"] == int(((targets >= 0) & (targets < 256)).sum())


def test_an_epoch_holds_every_token_once(documents: Documents) -> None:
    loader = TrainLoader(documents, 1, SEQ_LENGTH, seed=3)
    for _ in range(2):
        tokens, targets = one_epoch(loader)
        expected = Counter(documents.data.tolist())
        expected[EOS] = len(documents)
        assert Counter(targets[targets != IGNORED_TARGET].tolist()) == expected
    assert loader.epoch == 2


def test_rows_join_up_to_whole_documents() -> None:
    documents = Documents.from_bytes(bytes(range(start, start + 40)) for start in range(0, 240, 40))
    tokens, targets = one_epoch(TrainLoader(documents, 1, SEQ_LENGTH))
    pairs = bigrams(tokens, targets)
    inside = {(byte, byte + 1) for byte in range(239) if (byte + 1) % 40}
    starts = {(EOS, start) for start in range(0, 240, 40)}
    ends = {(start + 39, EOS) for start in range(0, 240, 40)}
    assert pairs == Counter(inside | starts | ends)


def test_batches_across_an_epochs_end_lose_and_repeat_nothing(documents: Documents) -> None:
    whole = TrainLoader(documents, 1, SEQ_LENGTH)
    rows = 3 * whole.rows_per_epoch
    assert whole.rows_per_epoch % 7
    in_sevens = TrainLoader(documents, 7, SEQ_LENGTH)
    expected = torch.cat([next(whole)["tokens"] for _ in range(rows)])
    received = torch.cat([next(in_sevens)["tokens"] for _ in range(rows // 7)])
    assert torch.equal(received, expected[: len(received)])


def test_epochs_and_seeds_differ_and_repeat(documents: Documents) -> None:
    loader = TrainLoader(documents, 1, SEQ_LENGTH, seed=1)
    first, second = one_epoch(loader)[0], one_epoch(loader)[0]
    assert not torch.equal(first, second)
    assert torch.equal(one_epoch(TrainLoader(documents, 1, SEQ_LENGTH, seed=1))[0], first)
    assert not torch.equal(one_epoch(TrainLoader(documents, 1, SEQ_LENGTH, seed=2))[0], first)


@pytest.mark.parametrize("served", [0, 1, 17, 40, 95])
def test_resume_is_exact_in_and_across_epochs(documents: Documents, served: int) -> None:
    loader = TrainLoader(documents, 5, SEQ_LENGTH, seed=4)
    for _ in range(served):
        next(loader)
    state = json.loads(json.dumps(loader.state_dict()))
    expected = [next(loader) for _ in range(60)]
    resumed = TrainLoader(documents, 5, SEQ_LENGTH, seed=4)
    next(resumed)
    resumed.load_state_dict(state)
    for batch in expected:
        again = next(resumed)
        assert torch.equal(again["tokens"], batch["tokens"])
        assert torch.equal(again["targets"], batch["targets"])
        assert again["bytes"] == batch["bytes"]
    assert resumed.state_dict() == loader.state_dict()


def test_resume_with_another_batch_size_goes_on_at_the_same_row(documents: Documents) -> None:
    loader = TrainLoader(documents, 6, SEQ_LENGTH)
    next(loader)
    resumed = TrainLoader(documents, 3, SEQ_LENGTH)
    resumed.load_state_dict(loader.state_dict())
    halves = torch.cat([next(resumed)["tokens"], next(resumed)["tokens"]])
    assert torch.equal(halves, next(loader)["tokens"])


def test_a_position_in_other_data_is_refused(documents: Documents) -> None:
    state = TrainLoader(documents, 2, SEQ_LENGTH).state_dict()
    other_text = Documents.from_bytes([documents.data.tobytes()])
    with pytest.raises(ValueError, match="does not fit this run's data: corpus: saved"):
        TrainLoader(other_text, 2, SEQ_LENGTH).load_state_dict(state)
    with pytest.raises(ValueError, match="seq_length: saved 16, now 8; seed: saved 0, now 1"):
        TrainLoader(documents, 2, 8, seed=1).load_state_dict(state)


def test_validation_is_every_row_once_and_always_the_same(documents: Documents) -> None:
    loader = EvalLoader(documents, 4, SEQ_LENGTH)
    first, second = list(loader), list(loader)
    assert len(first) == len(loader)
    assert all(torch.equal(a["tokens"], b["tokens"]) for a, b in zip(first, second, strict=True))
    targets = torch.cat([batch["targets"] for batch in first])
    assert int((targets != IGNORED_TARGET).sum()) == count_tokens(documents)
    assert sum(batch["bytes"] for batch in first) == documents.num_bytes


def test_validation_begins_with_rows_from_all_over(documents: Documents) -> None:
    in_order = EvalLoader(documents, 1, SEQ_LENGTH)._row_order
    assert len(np.unique(in_order)) == len(in_order)
    assert np.ptp(in_order[: len(in_order) // 4]) > len(in_order) // 2


@pytest.mark.parametrize("loader", [TrainLoader, EvalLoader])
def test_text_too_short_for_a_row(loader: type) -> None:
    documents = Documents.from_bytes([b"x" * 14])
    with pytest.raises(ValueError, match=r"text has 15 tokens: expected at least one row of seq_length = 16"):
        loader(documents, 2, SEQ_LENGTH)
    assert loader(Documents.from_bytes([b"x" * 15]), 2, SEQ_LENGTH) is not None


@pytest.mark.parametrize(("batch_size", "seq_length"), [(0, 4), (4, 0), (-1, 4)])
def test_sizes_must_be_positive(documents: Documents, batch_size: int, seq_length: int) -> None:
    with pytest.raises(ValueError, match="expected an integer >= 1"):
        TrainLoader(documents, batch_size, seq_length)


def test_loaders_of_a_config(tmp_path) -> None:
    for index in range(40):
        (tmp_path / f"{index}.txt").write_bytes(b"%d, " % index * 100)
    config = SEMConfig().with_overrides(
        f"data.paths={tmp_path}", "data.seq_length=32", "training.batch_size=6", "data.shuffle_seed=5"
    )
    train, validation = build_loaders(config)
    assert next(train)["tokens"].shape == (6, 32)
    assert next(iter(validation))["tokens"].shape == (6, 32)
    assert train.seed == 5
    assert train.documents.num_bytes + validation.documents.num_bytes == sum(
        path.stat().st_size for path in tmp_path.iterdir()
    )
    assert next(build_loaders(config, batch_size=2)[0])["tokens"].shape == (2, 32)
    with pytest.raises(ValueError, match="the validation text has .* tokens"):
        build_loaders(config, Corpus(train.documents, Documents.from_bytes([b"short"])))


@given(
    batch_size=st.integers(1, 5),
    world_size=st.integers(1, 4),
    batches=st.integers(1, 30),
    lengths=st.lists(st.integers(0, 60), min_size=2, max_size=6).filter(lambda lengths: sum(lengths) >= SEQ_LENGTH),
)
@settings(max_examples=50, deadline=None)
def test_ranks_share_out_the_batches_of_a_single_loader(batch_size, world_size, batches, lengths) -> None:
    random = np.random.default_rng(0)
    documents = Documents.from_bytes([random.bytes(length) for length in lengths])
    single = TrainLoader(documents, batch_size * world_size, SEQ_LENGTH)
    ranks = [
        TrainLoader(documents, batch_size, SEQ_LENGTH, rank=rank, world_size=world_size) for rank in range(world_size)
    ]
    for _ in range(batches):
        expected, shares = next(single), [next(loader) for loader in ranks]
        assert all(len(share["tokens"]) == batch_size for share in shares)
        for name in ("tokens", "targets"):
            assert torch.equal(torch.cat([share[name] for share in shares]), expected[name])
        assert sum(share["bytes"] for share in shares) == expected["bytes"]
    assert all(loader.state_dict() == single.state_dict() for loader in ranks)


@given(before=st.integers(1, 4), after=st.integers(1, 4), batches=st.integers(0, 15))
@settings(max_examples=30, deadline=None)
def test_another_number_of_ranks_goes_on_at_the_same_row(before: int, after: int, batches: int) -> None:
    documents = Documents.from_bytes([bytes(range(100)), bytes(range(100, 230))])
    first = TrainLoader(documents, 2, SEQ_LENGTH, rank=before - 1, world_size=before)
    for _ in range(batches):
        next(first)
    row_by_row = TrainLoader(documents, 1, SEQ_LENGTH)
    for _ in range(batches * before * 2):
        next(row_by_row)
    resumed = [TrainLoader(documents, 3, SEQ_LENGTH, rank=rank, world_size=after) for rank in range(after)]
    for loader in resumed:
        loader.load_state_dict(first.state_dict())
    received = torch.cat([next(loader)["tokens"] for loader in resumed])
    assert torch.equal(received, torch.cat([next(row_by_row)["tokens"] for _ in range(3 * after)]))


@pytest.mark.parametrize(("rank", "world_size"), [(2, 2), (-1, 2), (0, 0)])
def test_a_rank_is_one_of_the_worlds(documents: Documents, rank: int, world_size: int) -> None:
    with pytest.raises(ValueError, match=f"rank = {rank}: expected an integer from 0 to world_size - 1"):
        TrainLoader(documents, 2, SEQ_LENGTH, rank=rank, world_size=world_size)
