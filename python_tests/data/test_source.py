"""Datasets on disk, and sources that fail."""

from __future__ import annotations

import subprocess
import sys

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from shards import MemorySource, data_config, shard_texts, train_loader, write_jsonl, write_parquet

from sem.data.source import Attempts, DataSourceError, Position, open_source, read_shard

SHARDS = shard_texts(3, 23)


class Stutter:
    """Fails before the texts and as often as ``times`` says."""

    def __init__(self, times: dict[str, int], error: Exception) -> None:
        self.times = dict(times)
        self.error = error

    def __call__(self, text: str) -> None:
        if self.times.get(text, 0):
            self.times[text] -= 1
            raise self.error


def attempts(retries, messages, delays):
    return Attempts("memory", retries, report=messages.append, sleep=delays.append)


@pytest.mark.parametrize("error", [ConnectionError("reset"), OSError("no route"), TimeoutError(), EOFError("cut off")])
def test_reading_goes_on_behind_the_last_record_after_failures(error):
    texts = SHARDS[0]
    source = MemorySource(SHARDS, Stutter({texts[0]: 1, texts[7]: 3, texts[22]: 2}, error))
    messages, delays = [], []
    read = [record.text for record in read_shard(source, 0, Position(), attempts(3, messages, delays))]
    assert read == texts
    assert delays == [1.0, 1.0, 2.0, 4.0, 1.0, 2.0]
    assert len(messages) == 6
    assert messages[3] == (
        f"data.dataset = 'memory': {type(error).__name__}: {str(error) or 'no message'}; attempt 3 of 3 follows in 4 s"
    )


def test_a_source_that_stays_away_is_one_error():
    source = MemorySource(SHARDS, Stutter({SHARDS[0][7]: 100}, ConnectionError("reset by peer")))
    messages, delays = [], []
    records = read_shard(source, 0, Position(), attempts(9, messages, delays))
    with pytest.raises(
        DataSourceError, match=r"'memory': gave up after 10 attempts .*retries = 9.*ConnectionError: reset"
    ):
        list(records)
    assert delays == [1, 2, 4, 8, 16, 32, 60, 60, 60]
    assert len(messages) == 9


def test_what_is_not_there_or_not_allowed_is_not_waited_for():
    for error in (FileNotFoundError("no such repository"), PermissionError("gated")):
        delays = []
        source = MemorySource(SHARDS, Stutter({SHARDS[0][0]: 1}, error))
        with pytest.raises(ValueError, match=f"data.dataset = 'memory': {type(error).__name__}: {error}"):
            list(read_shard(source, 0, Position(), attempts(9, [], delays)))
        assert delays == []


def test_a_stutter_does_not_change_the_batches(monkeypatch):
    monkeypatch.setattr("sem.data.source.FIRST_DELAY", 0.0)
    steady = train_loader(MemorySource(SHARDS), data_config())
    fail = Stutter({SHARDS[0][3]: 2, SHARDS[2][20]: 1}, ConnectionError("reset"))
    stuttering = train_loader(MemorySource(SHARDS, fail), data_config())
    for _ in range(60):
        first, second = next(steady), next(stuttering)
        assert first["targets"].tolist() == second["targets"].tolist()
    assert sum(fail.times.values()) == 0
    assert steady.state_dict() == stuttering.state_dict()


@pytest.mark.parametrize("write", [write_parquet, write_jsonl])
def test_a_shard_can_be_read_from_behind_any_record(tmp_path, write):
    config = data_config(dataset=str(write(tmp_path, SHARDS)), score_field="int_score")
    source = open_source(config)
    assert source.num_shards == 3
    for shard, texts in enumerate(SHARDS):
        records = list(source.read(shard, Position()))
        assert [record.text for record in records] == texts
        assert [record.score for record in records] == [index % 5 for index in range(len(texts))]
        for index in (0, 5, 6, 7, 13, 21, 22):
            rest = [record.text for record in source.read(shard, records[index].behind)]
            assert rest == texts[index + 1 :]


def test_parquet_is_entered_at_the_row_group(tmp_path):
    """What lies before the position is not read: there it is damaged."""
    source = open_source(data_config(dataset=str(write_parquet(tmp_path, SHARDS))))
    behind = list(source.read(0, Position()))[15].behind
    assert behind.part == 2
    path = tmp_path / "part-000.parquet"
    content = bytearray(path.read_bytes())
    first_group = pq.ParquetFile(path).metadata.row_group(1).column(0).dictionary_page_offset
    content[4:first_group] = b"\xff" * (first_group - 4)
    path.write_bytes(content)
    assert [record.text for record in source.read(0, behind)] == SHARDS[0][16:]
    with pytest.raises((ValueError, OSError)):
        list(source.read(0, Position()))


def test_a_damaged_file_is_named(tmp_path):
    path = write_parquet(tmp_path, SHARDS) / "part-001.parquet"
    source = open_source(data_config(dataset=str(tmp_path)))
    path.write_bytes(b"no parquet" * 100)
    with pytest.raises(ValueError, match=r"data.dataset = '.*': shard 1: "):
        list(read_shard(source, 1, Position(), attempts(0, [], [])))


def test_globs_and_single_files(tmp_path):
    write_parquet(tmp_path, SHARDS)
    assert open_source(data_config(dataset=str(tmp_path / "part-00[12].parquet"))).num_shards == 2
    assert open_source(data_config(dataset=str(tmp_path / "part-001.parquet"))).num_shards == 1


def test_wrong_names_are_errors_that_say_so(tmp_path):
    with pytest.raises(ValueError, match="expected a name on the hub, or files that exist"):
        open_source(data_config(dataset=str(tmp_path / "nothing")))
    with pytest.raises(ValueError, match="expected parquet files or jsonl files, found nothing"):
        open_source(data_config(dataset=str(tmp_path)))
    write_parquet(tmp_path, SHARDS)
    for key in ("text_field", "score_field"):
        with pytest.raises(
            ValueError, match=f"data.{key} = 'body': expected a field of .*, it has id, text, int_score"
        ):
            open_source(data_config(dataset=str(tmp_path), **{key: "body"}))
    with pytest.raises(ValueError, match="data.dataset_config = 'small': expected null for files of this machine"):
        open_source(data_config(dataset=str(tmp_path), dataset_config="small"))
    with pytest.raises(ValueError, match="data.text_field = 'int_score': expected text, got int"):
        next(open_source(data_config(dataset=str(tmp_path), text_field="int_score")).read(0, Position()))
    (tmp_path / "notes.jsonl").write_text('{"text": "a"}\n')
    with pytest.raises(ValueError, match="expected parquet files or jsonl files, found json and parquet"):
        open_source(data_config(dataset=str(tmp_path)))


def test_a_score_that_is_no_number(tmp_path):
    pq.write_table(pa.table({"text": ["a"], "score": ["good"]}), tmp_path / "a.parquet")
    config = data_config(dataset=str(tmp_path), score_field="score", min_score=1.0)
    with pytest.raises(ValueError, match="data.score_field = 'score': expected numbers, got 'good'"):
        next(train_loader(open_source(config), config))


def test_a_dataset_that_cannot_be_reached_is_one_error():
    delays = []
    with pytest.raises(DataSourceError, match=r"data.dataset = 'nobody/nothing-here': gave up after 3 attempts"):
        open_source(data_config(dataset="nobody/nothing-here", retries=2), sleep=delays.append)
    assert delays == [1.0, 2.0]


def test_a_missing_library_is_one_sentence(monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(ImportError, match=r"data.dataset needs the datasets library: pip install 'sem-torch\[hub\]'"):
        open_source(data_config(dataset="a/b"))


def test_data_imports_nothing_optional():
    script = "import sem.data, sys; print({'datasets', 'tokenizers', 'pyarrow', 'rich'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
