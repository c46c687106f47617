"""Streams: who reads what, in which order, and where they go on."""

from __future__ import annotations

import json
from collections import Counter
from itertools import chain, islice

import pytest
import torch
from shards import MemorySource, data_config, shard_texts, train_loader, write_jsonl, write_parquet

from sem.data.file_tokenizer import train_tokenizer
from sem.data.lane import Lane, LaneState, is_held_out
from sem.data.source import open_source
from sem.data.streaming import StreamEvalLoader, StreamTrainLoader, iterate_texts
from sem.data.tokenizer import EOS, ByteTokenizer

SHARDS = shard_texts(5, 23)
TEXTS = list(chain.from_iterable(SHARDS))


def lane_texts(source, config, number, count, epoch=0):
    lane = Lane(
        source=source,
        tokenizer=ByteTokenizer(),
        config=config,
        batch_size=1,
        seq_length=8,
        number=number,
        count=count,
    )
    return [text for text, *_ in lane.documents(epoch, LaneState(epoch=epoch))]


def take(loader, count):
    return [next(loader) for _ in range(count)]


def assert_equal_batches(first, second):
    assert len(first) == len(second)
    for a, b in zip(first, second, strict=True):
        assert torch.equal(a["tokens"], b["tokens"])
        assert torch.equal(a["targets"], b["targets"])
        assert a["bytes"] == b["bytes"]


@pytest.mark.parametrize("shards", [1, 2, 3, 5, 7])
@pytest.mark.parametrize("count", [1, 2, 3, 4, 6, 8])
def test_ranks_and_workers_share_out_every_document_once(shards, count):
    texts = shard_texts(shards, 23)
    source, config = MemorySource(texts), data_config()
    wanted = [text for text in chain.from_iterable(texts) if not is_held_out(text, config)]
    for epoch in (0, 1):
        read = [lane_texts(source, config, number, count, epoch) for number in range(count)]
        assert Counter(chain.from_iterable(read)) == Counter(wanted)


@pytest.mark.parametrize("write", [write_parquet, write_jsonl])
@pytest.mark.parametrize("count", [1, 2, 4])
def test_files_are_shared_out_once(tmp_path, write, count):
    texts = shard_texts(3, 23)
    config = data_config(dataset=str(write(tmp_path, texts)))
    source = open_source(config)
    read = chain.from_iterable(lane_texts(source, config, number, count) for number in range(count))
    assert Counter(read) == Counter(text for text in chain.from_iterable(texts) if not is_held_out(text, config))


def test_epochs_begin_with_other_shards_and_hold_the_same():
    source, config = MemorySource(SHARDS), data_config()
    first, second = (lane_texts(source, config, 0, 1, epoch) for epoch in (0, 1))
    assert first != second
    assert sorted(first) == sorted(second)


@pytest.mark.parametrize("settings", [{}, {"shuffle_buffer": 1}, {"shuffle_buffer": 1000}, {"num_workers": 2}])
def test_rows_are_the_documents_end_to_end(settings):
    config = data_config(**settings)
    loader = train_loader(MemorySource(SHARDS), config)
    batches = []
    while loader.epoch < 2:
        batches.append(next(loader))
    readers = max(1, config.num_workers)
    wanted = Counter(text for text in TEXTS if not is_held_out(text, config))
    seen: Counter[str] = Counter()
    for reader in range(readers):
        mine = batches[reader::readers]
        targets = torch.cat([batch["targets"].flatten() for batch in mine]).tolist()
        tokens = torch.cat([batch["tokens"].flatten() for batch in mine]).tolist()
        assert tokens == [EOS, *targets[:-1]]
        decoded = bytes(token if token < 256 else 0 for token in targets).decode(errors="replace")
        seen.update(decoded.split("\0")[:-1])
    assert set(seen) == set(wanted)
    assert min(seen.values()) >= 2
    loader.close()


def test_shuffling_mixes_the_documents_of_a_buffer():
    def order(buffer):
        config = data_config(shuffle_buffer=buffer)
        loader = train_loader(MemorySource(SHARDS), config, batch_size=400, seq_length=32)
        text = ByteTokenizer().decode(token if token != EOS else 10 for token in next(loader)["targets"].flatten())
        return text.split("\n")[:-1]

    config = data_config()
    in_order = lane_texts(MemorySource(SHARDS), config, 0, 1)
    plain, mixed, all_mixed = order(1), order(8), order(10_000)
    size = min(len(plain), len(in_order))
    assert plain[:size] == in_order[:size]
    assert mixed[:8] != plain[:8]
    assert sorted(mixed[:8]) == sorted(plain[:8])
    assert sorted(all_mixed[: len(in_order)]) == sorted(in_order)
    assert set(all_mixed[:8]) != set(plain[:8])


@pytest.mark.parametrize(
    ("write", "settings"),
    [
        (write_parquet, {}),
        (write_jsonl, {}),
        (write_parquet, {"shuffle_buffer": 1}),
        (write_jsonl, {"score_field": "int_score", "min_score": 2.0}),
        (write_parquet, {"score_field": "int_score", "min_score": 2.0, "shuffle_buffer": 1000}),
    ],
)
def test_resume_is_exact_in_documents_blocks_and_epochs(tmp_path, write, settings):
    config = data_config(dataset=str(write(tmp_path, shard_texts(4, 23))), **settings)
    source = open_source(config)
    loader = train_loader(source, config)
    batches, states = [], []
    while loader.epoch < 2:
        states.append(json.loads(json.dumps(loader.state_dict())))
        batches.append(next(loader))
    expected = batches + take(loader, 4)
    assert {state["ranks"]["0"]["readers"][0]["epoch"] for state in states} >= {0, 1}
    for served in {0, 1, 2, 5, *range(len(states) // 2 - 2, len(states) // 2 + 2), len(states) - 1}:
        resumed = train_loader(source, config)
        resumed.load_state_dict(states[served])
        assert resumed.state_dict() == states[served]
        assert_equal_batches(take(resumed, 5), expected[served : served + 5])


def test_resume_with_reader_processes(tmp_path):
    config = data_config(dataset=str(write_parquet(tmp_path, shard_texts(5, 23))), num_workers=2)
    tokenizer = train_tokenizer(TEXTS, 300)
    loader = train_loader(open_source(config), config, tokenizer)
    take(loader, 7)
    state = json.loads(json.dumps(loader.state_dict()))
    expected = take(loader, 6)
    loader.load_state_dict(state)
    assert_equal_batches(take(loader, 6), expected)
    loader.close()
    alone = train_loader(open_source(config), data_config(**vars(config) | {"num_workers": 0}), tokenizer)
    with pytest.raises(ValueError, match="readers: saved 2, now 1"):
        alone.load_state_dict(state)


def test_resume_with_another_batch_size_goes_on_at_the_same_row():
    loader = train_loader(MemorySource(SHARDS), data_config(), batch_size=6)
    next(loader)
    resumed = train_loader(MemorySource(SHARDS), data_config(), batch_size=3)
    resumed.load_state_dict(loader.state_dict())
    assert torch.equal(torch.cat([batch["tokens"] for batch in take(resumed, 2)]), next(loader)["tokens"])


@pytest.mark.parametrize(
    ("settings", "options", "message"),
    [
        ({"shuffle_seed": 1}, {}, "shuffle_seed: saved 0, now 1"),
        ({"shuffle_buffer": 9}, {}, "shuffle_buffer: saved 8, now 9"),
        ({"score_field": "s", "min_score": 1.0}, {}, "score_field: saved None, now s; min_score: saved None, now 1.0"),
        ({"validation_share": 0.3}, {}, "validation_share: saved 0.2, now 0.3"),
        ({}, {"seq_length": 8}, "seq_length: saved 16, now 8"),
        ({}, {"world_size": 2}, "world_size: saved 1, now 2"),
        ({}, {"tokenizer": "trained"}, "tokenizer: saved bytes, now [0-9a-f]{32}"),
        ({}, {"source": MemorySource(SHARDS[:2])}, "dataset: saved memory of 5, now memory of 2"),
    ],
)
def test_a_position_in_other_data_is_refused(settings, options, message):
    state = train_loader(MemorySource(SHARDS), data_config()).state_dict()
    source = options.pop("source", MemorySource(SHARDS))
    if "tokenizer" in options:
        options["tokenizer"] = train_tokenizer(TEXTS, 300)
    with pytest.raises(ValueError, match=f"does not fit this run's data: {message}$"):
        train_loader(source, data_config(**settings), **options).load_state_dict(state)


def test_files_that_changed_are_another_dataset_and_moved_ones_are_not(tmp_path):
    def loader(folder):
        config = data_config(dataset=str(folder))
        return train_loader(open_source(config), config)

    folder = tmp_path / "before"
    folder.mkdir()
    state = loader(write_parquet(folder, SHARDS)).state_dict()
    loader(folder.rename(tmp_path / "after")).load_state_dict(state)
    write_parquet(tmp_path / "after", SHARDS[:4] + [SHARDS[4][:-1]])
    with pytest.raises(ValueError, match="files: saved"):
        loader(tmp_path / "after").load_state_dict(state)


def test_each_rank_continues_its_own_share():
    def loaders():
        return [train_loader(MemorySource(SHARDS), data_config(), rank=rank, world_size=2) for rank in (0, 1)]

    ranks = loaders()
    for loader in ranks:
        take(loader, 5)
    states = [loader.state_dict() for loader in ranks]
    assert states[0]["identity"] == states[1]["identity"]
    state = states[0] | {"ranks": states[0]["ranks"] | states[1]["ranks"]}
    expected = [take(loader, 5) for loader in ranks]
    assert not torch.equal(expected[0][0]["tokens"], expected[1][0]["tokens"])
    for loader, batches in zip(loaders(), expected, strict=True):
        loader.load_state_dict(state)
        assert_equal_batches(take(loader, 5), batches)
    with pytest.raises(ValueError, match="is of rank 1: expected one of rank 0"):
        loaders()[0].load_state_dict(ranks[1].state_dict())
    with pytest.raises(ValueError, match="rank = 2: expected an integer from 0 to world_size - 1 = 1"):
        train_loader(MemorySource(SHARDS), data_config(), rank=2, world_size=2)


def test_low_scores_and_empty_texts_are_left_out():
    shards = [["", "low", "a", "b", "", "c"]]
    config = data_config(score_field="s", min_score=2.0, validation_share=1e-9)
    assert lane_texts(MemorySource(shards), config, 0, 1) == ["a", "b", "c"]


def test_a_share_without_text_is_an_error():
    config = data_config(score_field="s", min_score=1000.0)
    with pytest.raises(ValueError, match=r"reader 1 of 1 found no text to train on in 8 epochs; lower data.min_score"):
        next(train_loader(MemorySource(SHARDS), config))


def test_held_out_text_is_scored_and_never_trained_on():
    source, config = MemorySource(SHARDS), data_config(validation_documents=1000)
    held_out = list(iterate_texts(source, config, 1000, held_out=True))
    trained = lane_texts(source, config, 0, 1)
    assert sorted(held_out + trained) == sorted(TEXTS)
    assert 0.1 < len(held_out) / len(TEXTS) < 0.3
    assert list(iterate_texts(source, config, 3, held_out=True)) == held_out[:3]
    loader = StreamEvalLoader(source, ByteTokenizer(), config, 4, 16)
    assert sum(batch["bytes"] for batch in loader) == sum(len(text.encode()) for text in held_out)
    assert_equal_batches(list(loader), list(loader))
    assert len(loader) == len(list(loader))
    few = StreamEvalLoader(source, ByteTokenizer(), data_config(validation_documents=2), 4, 16)
    assert sum(batch["bytes"] for batch in few) == sum(len(text.encode()) for text in held_out[:2])


def test_bytes_do_not_depend_on_the_tokenizer():
    """All of an epoch's text is counted, however few tokens it takes."""
    source, config = MemorySource(SHARDS), data_config(validation_documents=1000, shuffle_buffer=1000)
    trained = train_tokenizer(TEXTS, 400)
    totals, tokens = [], []
    for tokenizer in (ByteTokenizer(), trained):
        batches = list(StreamEvalLoader(source, tokenizer, config, 4, 16))
        totals.append(sum(batch["bytes"] for batch in batches))
        tokens.append(sum(int((batch["targets"] >= 0).sum()) for batch in batches))
    assert totals[0] == totals[1]
    assert tokens[1] < tokens[0] / 1.5
    loader = train_loader(source, config, trained)
    for batch in islice(loader, 10):
        assert batch["bytes"] == len(trained.decode_bytes(batch["targets"].flatten().tolist()))


def test_a_loader_needs_positive_sizes():
    with pytest.raises(ValueError, match="batch_size = 0: expected an integer >= 1"):
        StreamTrainLoader(MemorySource(SHARDS), ByteTokenizer(), data_config(), 0, 16)
