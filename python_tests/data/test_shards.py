"""Json lines and parquet as they come: what is read, what is refused, and in which words."""

from __future__ import annotations

import bz2
import gzip
import json
import logging
import lzma
import os

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from shards import data_config

from sem.data.source import open_source
from sem.data.streaming import iterate_texts


def row(text, **more) -> bytes:
    return json.dumps({"text": text, **more}).encode() + b"\n"


A, B, C = row("alpha"), row("beta"), row("gamma")


def texts(folder, files: dict[str, bytes], **settings) -> list[str]:
    for name, content in files.items():
        (folder / name).write_bytes(content)
    config = data_config(dataset=str(folder), validation_share=1e-9, retries=0, **settings)
    return list(iterate_texts(open_source(config, sleep=lambda seconds: None), config, 10**9, held_out=False))


GOOD = {
    "blank lines": (A + b"\n\n   \n" + B + b"\n\n", ["alpha", "beta"]),
    "no final newline": (A + B[:-1], ["alpha", "beta"]),
    "CRLF": (A[:-1] + b"\r\n" + B[:-1] + b"\r\n", ["alpha", "beta"]),
    "byte order mark": (b"\xef\xbb\xbf" + A + B, ["alpha", "beta"]),
    "null and empty text": (A + row(None) + row("") + B, ["alpha", "beta"]),
    "first row null": (row(None) + A, ["alpha"]),
    "other fields of other types": (
        row("alpha", x=1) + row("beta", x="s") + row("gamma", y=[1]),
        ["alpha", "beta", "gamma"],
    ),
    "text missing in one row": (A + b'{"other": 1}\n' + B, ["alpha", "beta"]),
    "separators of Unicode": ('{"text": "a\u2028b\u0085c"}\n'.encode() + B, ["a\u2028b\u0085c", "beta"]),
    "NUL": (row("a\0b"), ["a\0b"]),
    "long row": (A + row("y" * 5_000_000) + B, ["alpha", "y" * 5_000_000, "beta"]),
}


@pytest.mark.parametrize(("content", "expected"), GOOD.values(), ids=GOOD)
def test_text_as_it_comes(tmp_path, content, expected):
    assert texts(tmp_path, {"a.jsonl": content}) == expected


@pytest.mark.parametrize(
    ("name", "pack"),
    [
        ("a.jsonl.gz", gzip.compress),
        ("a.jsonl.bz2", bz2.compress),
        ("a.jsonl.xz", lzma.compress),
        ("a.jsonl.zst", None),
    ],
)
def test_compressed_files(tmp_path, name, pack):
    pack = pack or (lambda data: pa.compress(data, codec="zstd", asbytes=True))
    assert texts(tmp_path, {name: pack(A) + pack(B)}) == ["alpha", "beta"]


def test_columns_that_nobody_uses_may_drift_between_shards(tmp_path):
    files = {"a.jsonl": row("alpha", url=None), "b.jsonl": row("beta", url="u"), "c.jsonl": row("gamma", url={"k": 2})}
    assert texts(tmp_path, files) == ["alpha", "beta", "gamma"]


def test_a_shard_may_be_empty_or_without_any_text(tmp_path):
    files = {"a.jsonl": b"", "b.jsonl": A, "c.jsonl": row(None) * 2, "d.jsonl": C}
    assert texts(tmp_path, files) == ["alpha", "gamma"]


def test_parquet_columns_may_drift(tmp_path):
    pq.write_table(pa.table({"text": pa.nulls(2), "n": [1, 2]}), tmp_path / "a.parquet")
    pq.write_table(pa.table({"n": ["x"], "text": ["beta"]}), tmp_path / "b.parquet")
    assert texts(tmp_path, {}) == ["beta"]


def test_null_to_text_behind_megabytes_of_one_file(tmp_path):
    content = b"".join(row("alpha", url=None) for _ in range(400_000)) + row("beta", url="u")
    assert texts(tmp_path, {"a.jsonl": content}) == ["alpha"] * 400_000 + ["beta"]


def test_a_json_list(tmp_path):
    assert texts(tmp_path, {"a.json": b'[{"text": "alpha"},\n {"text": "beta"}]'}) == ["alpha", "beta"]


PACKED = gzip.compress(b"".join(row(os.urandom(200).hex()) for _ in range(500)))
BAD = {
    "gz cut off": ("a.jsonl.gz", PACKED[: len(PACKED) // 2], r"a.jsonl.gz: damaged behind line \d+ \("),
    "gz altered": ("a.jsonl.gz", PACKED[:5000] + b"\0" * 50 + PACKED[5050:], "a.jsonl.gz"),
    "no gz at all": ("a.jsonl.gz", A + B, r"a.jsonl.gz: damaged behind line 0 \(Not a gzipped file"),
    "bz2 cut off": ("a.jsonl.bz2", bz2.compress(A * 1000)[:-9], "a.jsonl.bz2: damaged behind line"),
    "xz altered": ("a.jsonl.xz", lzma.compress(A * 1000)[:40] + b"\0" * 9, "a.jsonl.xz: damaged behind line"),
    "no zst": ("a.jsonl.zst", A, "a.jsonl.zst: damaged behind line 0"),
    "no JSON": ("a.jsonl", A + b"this is not json\n" + B, r"a.jsonl: line 2: no JSON \(Expecting value"),
    "no UTF-8": (
        "a.jsonl",
        A + b'{"text": "\xff\xfe"}\n',
        r"a.jsonl: line 2: not UTF-8 \(invalid start byte at byte 10",
    ),
    "half a surrogate pair": ("a.jsonl", b'{"text": "hi \\ud83d"}\n', "a.jsonl: line 1: no Unicode text"),
    "a number": ("a.jsonl", b'{"text": 12}\n', "data.text_field = 'text': expected text, got int in .*line 1"),
    "no object": ("a.jsonl", b"[1, 2]\n", "a.jsonl: line 1: expected an object, got list"),
    "deep": ("a.jsonl", b"[" * 200_000 + b"\n", "a.jsonl: line 1: no JSON"),
    "no such field": ("a.jsonl", b'{"body": "x"}\n', "data.text_field = 'text': expected a field of .*it has body"),
    "no parquet": ("a.parquet", b"no parquet" * 100, "a.parquet: damaged, or no parquet file"),
}


@pytest.mark.parametrize(("name", "content", "message"), BAD.values(), ids=BAD)
def test_what_cannot_be_read_is_one_line_with_the_place(tmp_path, name, content, message):
    with pytest.raises(ValueError, match=message) as caught:
        texts(tmp_path, {name: content})
    assert str(caught.value).startswith("data.") and "\n" not in str(caught.value)


def test_bad_rows_are_skipped_and_counted_where_that_is_asked_for(tmp_path, caplog):
    content = A + b"oops\n" + B + b'{"text": 7}\n' + C
    with caplog.at_level(logging.WARNING):
        assert texts(tmp_path, {"a.jsonl": content}, bad_rows="skip") == ["alpha", "beta", "gamma"]
    assert "a.jsonl: left out 2 rows that are no records, the first: " in caplog.text and "line 2" in caplog.text


def test_scores(tmp_path):
    content = row("alpha", q=3.5) + b'{"text": "beta", "q": NaN}\n' + row("gamma", q=None) + row("delta", q=True) + C
    assert texts(tmp_path, {"a.jsonl": content}, score_field="q", min_score=1) == ["alpha", "delta"]


def test_a_row_without_end_does_not_fill_the_memory(tmp_path, monkeypatch):
    monkeypatch.setattr("sem.data.shards._LONGEST", 10_000)
    with pytest.raises(ValueError, match="a.jsonl.gz: line 2: expected at most"):
        texts(tmp_path, {"a.jsonl.gz": gzip.compress(A + row("x" * 20_000))})
    (tmp_path / "a.jsonl.gz").unlink()
    with pytest.raises(ValueError, match="a.json: expected a list of at most"):
        texts(tmp_path, {"a.json": b'[\n{"text": "' + b"x" * 20_000 + b'"}]'})


def test_replaced_files_are_noticed_and_a_copy_is_not(tmp_path):
    def identity(folder):
        return open_source(data_config(dataset=str(folder))).identity

    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "a.jsonl").write_bytes(A * 10_000)
    assert identity(tmp_path / "one") == identity(tmp_path / "two")
    (tmp_path / "two" / "a.jsonl").write_bytes(A.upper() * 10_000)
    assert identity(tmp_path / "one") != identity(tmp_path / "two")
