"""Stages that read documents of some scores: whose tokens each of their batches holds, and where a stream goes on."""

from __future__ import annotations

import json
import random

import pytest
import torch
from shards import MemorySource, data_config, shard_texts, train_loader, write_jsonl

from sem.config_sections import Stage
from sem.data import lane as lanes
from sem.data import streaming
from sem.data.curriculum import Curriculum, Plan
from sem.data.lane import Lane
from sem.data.source import open_source
from sem.data.streaming import StreamEvalLoader
from sem.data.tokenizer import EOS, ByteTokenizer
from sem.training.distributed import merge_states

SHARDS = shard_texts(5, 23)
"""Of which a document's score is its number in the shard."""
STAGES = tuple(map(Stage.parse, ("score >= 15 until 0.3", "8 and score <= 6 until 0.55", "score >= 4 until 0.75")))
PLAN = Plan(STAGES, step_rows=6, max_steps=8)
"""Of steps of 6 rows: two batches of 3, or one of each of two ranks."""


def loader_of(config, plan=PLAN, source=None, **options):
    return Curriculum(train_loader(source or MemorySource(SHARDS), config, plan=plan, **options), plan)


def take(loader, count):
    return [next(loader) for _ in range(count)]


def saved(loader):
    return json.loads(json.dumps(loader.state_dict()))


def assert_equal_batches(first, second):
    for ours, theirs in zip(first, second, strict=True):
        assert ours["tokens"].equal(theirs["tokens"])
        assert ours["targets"].equal(theirs["targets"])
        assert ours["bytes"] == theirs["bytes"]


def documents(config, number, count):
    """The texts of a lane, as they come without a curriculum."""
    ids = []
    place = {"number": number, "count": count}
    lane = Lane(
        source=MemorySource(SHARDS), tokenizer=ByteTokenizer(), config=config, batch_size=1, seq_length=64, **place
    )
    for batch in lane:
        for token in batch.targets.flatten().tolist():
            if token == EOS:
                yield bytes(ids).decode()
                ids = []
            else:
                ids.append(token)


def score_of(text):
    return int(text[text.index(".") + 1 : text.index(">")])


def targets_of(config, plan, place, shape, batches):
    """The targets of the first batches of a reader, laid out by hand: documents in the order of the data, each taken
    if the stage of the batch that its first token comes into reads it.

    Args:
        place: rank, processes, reader, readers of a rank.
    """
    rank, world_size, reader, readers = place
    tokens = shape[0] * shape[1]
    targets = []
    for text in documents(config, rank * readers + reader, world_size * readers):
        batch = len(targets) // tokens
        if batch >= batches:
            break
        rows = (batch * readers + reader) * shape[0] * world_size
        if plan.at(rows).reads(score_of(text)):
            targets += [*text.encode(), EOS]
    return targets[: batches * tokens]


@pytest.mark.parametrize("seed", range(24))
def test_batches_are_the_documents_that_their_stages_read(seed):
    draw = random.Random(seed)
    shape, world_size = (draw.randint(1, 3), draw.randint(4, 40)), draw.randint(1, 3)
    lows = [draw.randint(0, 15) for _ in range(3)]
    bounds = [draw.choice([(low, 99), (-99, low + 7), (low, low + 7)]) for low in lows]
    shares = sorted(draw.sample(range(1, 20), 3))
    stages = tuple(Stage(share / 20, None, *pair) for share, pair in zip(shares, bounds, strict=True))
    plan = Plan(stages, step_rows=shape[0] * world_size * draw.randint(1, 3), max_steps=draw.randint(4, 9))
    config = data_config(shuffle_buffer=draw.choice([1, 8, 1000]))
    batches = plan.step_rows // shape[0] // world_size * plan.max_steps + 2
    for rank in range(world_size):
        options = {"batch_size": shape[0], "seq_length": shape[1], "rank": rank, "world_size": world_size}
        served = take(loader_of(config, plan, **options), batches)
        found = torch.cat([batch["targets"].flatten() for batch in served]).tolist()
        assert found == targets_of(config, plan, (rank, world_size, 0, 1), shape, batches)


@pytest.mark.parametrize("settings", [{}, {"shuffle_buffer": 1}, {"score_field": "score", "min_score": 3.0}])
def test_a_stream_goes_on_exactly_wherever_it_stopped(settings):
    config = data_config(**settings)
    loader, states, batches = loader_of(config), [], []
    for _ in range(20):
        states.append(saved(loader))
        batches.append(next(loader))
    assert [batch["tokens"].shape[1] for batch in batches] == [16] * 6 + [8] * 4 + [16] * 10
    for served, state in enumerate(states[:17]):
        resumed = loader_of(config)
        resumed.load_state_dict(state)
        assert saved(resumed) == state
        assert_equal_batches(take(resumed, 3), batches[served : served + 3])


def test_ranks_go_on_with_what_their_states_are_together():
    def ranks():
        return [loader_of(data_config(), rank=rank, world_size=2) for rank in range(2)]

    straight, stopped = ranks(), ranks()
    expected = [take(loader, 10) for loader in straight]
    for served in range(8):
        state = merge_states([saved(loader) for loader in stopped])
        for rank, resumed in enumerate(ranks()):
            resumed.load_state_dict(state)
            assert_equal_batches(take(resumed, 2), expected[rank][served : served + 2])
        for loader in stopped:
            next(loader)


def test_reader_processes_read_what_the_stages_say_and_go_on_out_of_turn(monkeypatch):
    config = data_config(num_workers=2)
    with monkeypatch.context() as here:
        here.setattr(streaming, "ReaderProcess", lambda lane, name: iter(lane))
        loader, batches = loader_of(config, seq_length=64), []
        for served in range(16):
            if served == 5:  # it is the second one's turn, with a batch to go in the stage
                state = saved(loader)
            batches.append(next(loader))
    for reader in range(2):
        found = torch.cat([batch["targets"].flatten() for batch in batches[reader::2]]).tolist()
        assert found == targets_of(config, PLAN, (0, 1, reader, 2), (3, 64), 8)
    resumed = loader_of(config, seq_length=64)
    resumed.load_state_dict(state)
    assert_equal_batches(take(resumed, 11), batches[5:])
    resumed.close()


def test_another_curriculum_takes_over_at_the_same_document():
    without, other = Plan((Stage(1.0, 8),), 6, 8), Plan((Stage(1.0, None, 10),), 6, 8)
    loader = loader_of(data_config(), without)
    take(loader, 3)
    state = saved(loader)
    resumed = loader_of(data_config(), other)
    resumed.load_state_dict(state)
    targets = torch.cat([batch["targets"].flatten() for batch in take(resumed, 9)]).tolist()
    texts = bytes(token if token < 256 else 0 for token in targets).decode(errors="replace").split("\0")
    begun = [text for text in texts[1:] if ">" in text]  # the first one began before
    assert len(begun) > 5
    assert min(map(score_of, begun)) >= 10


def test_held_out_text_is_that_of_a_run_without():
    config = data_config(validation_documents=1000)
    loader = StreamEvalLoader(MemorySource(SHARDS), ByteTokenizer(), config, 4, 16)
    held_out = [text for text in sum(SHARDS, []) if lanes.is_held_out(text, config)]
    assert min(map(score_of, held_out)) < 3
    assert sum(batch["bytes"] for batch in loader) == sum(len(text.encode()) for text in held_out)


def test_a_stage_that_no_document_reaches_is_one_sentence(monkeypatch, caplog):
    monkeypatch.setattr(lanes, "_MANY", 100)
    loader = loader_of(data_config(), Plan((Stage(0.5, None, 10), Stage(1.0, None, 23.5)), 3, 4))
    take(loader, 2)
    with pytest.raises(
        ValueError, match="reader 1 of 1 found no text with score >= 23.5 in 8 epochs; change that stage"
    ):
        take(loader, 9)  # with what is left of a document that began before
    assert "reader 1 of 1 passed over 100 documents in a row, none has score >= 23.5" in caplog.text


def test_records_without_a_score_are_read_where_none_is_asked_for(tmp_path):
    rows = [
        {"text": "a" * 9, "s": 1},
        {"text": "b" * 9},
        {"text": "c" * 9, "s": float("nan")},
        {"text": "d" * 9, "s": 3},
    ]
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, rows)))
    config = data_config(dataset=str(tmp_path), score_field="s", validation_share=1e-9)
    stages = (Stage(0.25, None, 2), Stage(0.5, None, most=2), Stage(0.75, None, -1e9))
    loader = loader_of(config, Plan(stages, 3, 4), open_source(config), seq_length=20)
    letters = ["".join(chr(token) for token in next(loader)["targets"].flatten() if token < 256) for _ in range(4)]
    assert [set(text) for text in letters] == [set("d"), set("a"), set("ad"), set("abcd")]


def test_a_score_that_is_no_number_is_named_with_its_file_and_line(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"text": "a", "s": 1}\n{"text": "b", "s": "good"}\n')
    config = data_config(dataset=str(tmp_path), score_field="s", validation_share=1e-9)
    place = rf"{tmp_path}/a.jsonl: line 2"
    with pytest.raises(ValueError, match=f"data.score_field = 's': expected numbers, got 'good' in {place}$"):
        next(loader_of(config, source=open_source(config)))
    unjudged = Plan((Stage(1.0, 8),))
    assert next(loader_of(config, unjudged, open_source(config)))["tokens"].shape == (6, 8)
    folder = write_jsonl(tmp_path, SHARDS[:1])
    config = data_config(dataset=str(folder / "part-000.jsonl.gz"), score_field="quality")
    with pytest.raises(ValueError, match="data.score_field = 'quality': expected a field of .*, it has"):
        next(loader_of(config, source=open_source(config)))
