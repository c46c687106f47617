"""Datasets for the stream's tests: in memory, and on disk in the formats of the hub."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from sem.config_sections import DataConfig
from sem.data.source import Position, Record
from sem.data.streaming import StreamTrainLoader
from sem.data.tokenizer import ByteTokenizer, Tokenizer

TEXT_SIZES = (1, 40, 7, 90, 3, 16, 17)


def shard_texts(shards: int, documents: int) -> list[list[str]]:
    """Texts that name their place, of many lengths, some of letters that take several bytes."""
    return [
        [f"<{shard}.{index}>" + "aé漢"[index % 3] * TEXT_SIZES[index % len(TEXT_SIZES)] for index in range(documents)]
        for shard in range(shards)
    ]


def never(text: str) -> None:
    """Fails on no text."""


class MemorySource:
    """Shards of parts of two records; the score of a record is its number in the shard.

    Args:
        fail: called before each record with its text; may raise.
    """

    def __init__(self, shards: list[list[str]], fail: Callable[[str], None] = never) -> None:
        self.name = "memory"
        self.shards = shards
        self.fail = fail
        self.num_shards = len(shards)
        self.identity = {"dataset": f"memory of {len(shards)}"}

    def read(self, shard: int, begin: Position) -> Iterator[Record]:
        texts = self.shards[shard]
        for index in range(2 * begin.part + begin.row, len(texts)):
            self.fail(texts[index])
            yield Record(texts[index], float(index), Position(index // 2, index % 2 + 1))


def write_parquet(folder: Path, shards: list[list[str]]) -> Path:
    for number, texts in enumerate(shards):
        scores = [index % 5 for index in range(len(texts))]
        table = pa.table({"id": [f"{number}-{i}" for i in range(len(texts))], "text": texts, "int_score": scores})
        pq.write_table(table, folder / f"part-{number:03d}.parquet", row_group_size=7)
    return folder


def write_jsonl(folder: Path, shards: list[list[str]]) -> Path:
    for number, texts in enumerate(shards):
        with gzip.open(folder / f"part-{number:03d}.jsonl.gz", "wt", encoding="utf-8") as file:
            for index, text in enumerate(texts):
                file.write(json.dumps({"text": text, "int_score": index % 5}) + "\n")
    return folder


def data_config(**settings) -> DataConfig:
    return DataConfig(**({"dataset": "memory", "shuffle_buffer": 8, "validation_share": 0.2} | settings))


def train_loader(source, config: DataConfig, tokenizer: Tokenizer | None = None, **options) -> StreamTrainLoader:
    options = {"batch_size": 3, "seq_length": 16} | options
    return StreamTrainLoader(source, tokenizer or ByteTokenizer(), config, **options)
