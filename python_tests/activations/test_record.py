import json
import math

import pytest

from sem.activations import Activations, Summary, read, write

RECORD = Activations(
    Summary("Net", 120, "runs/a/step_4.pt", "text", 31, 4),
    {"lift": {"count": 12, "mean": -0.25, "dc_share": None}, "head": {"count": 3, "mean": 1e-300}},
    {"block": {"residual_ratio": 0.001}},
)


def test_what_is_written_is_read(tmp_path):
    write(tmp_path / "a.json", RECORD)
    assert read(tmp_path / "a.json") == RECORD
    assert list(read(tmp_path / "a.json").layers) == ["lift", "head"]
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]


def test_the_form_of_the_file(tmp_path):
    write(tmp_path / "a.json", RECORD)
    content = json.loads((tmp_path / "a.json").read_text())
    assert list(content) == ["summary", "layers", "blocks"]
    assert list(content["summary"]) == ["architecture", "parameters", "checkpoint", "data", "samples", "step"]
    assert content["layers"]["lift"] == {"count": 12, "mean": -0.25, "dc_share": None}


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_is_null(tmp_path, value):
    write(tmp_path / "a.json", Activations(layers={"a": {"mean": value, "std": 1.0}}))
    assert '"mean": null' in (tmp_path / "a.json").read_text()
    assert read(tmp_path / "a.json").layers == {"a": {"mean": None, "std": 1.0}}


def test_a_failed_write_leaves_the_old_file(tmp_path):
    write(tmp_path / "a.json", RECORD)
    with pytest.raises(TypeError):
        write(tmp_path / "a.json", Activations(layers={"a": {"mean": object()}}))
    assert read(tmp_path / "a.json") == RECORD
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]


GOOD = {
    "summary": {
        "architecture": "Net",
        "parameters": 1,
        "checkpoint": None,
        "data": None,
        "samples": None,
        "step": None,
    },
    "layers": {"a": {"mean": 1.0}},
    "blocks": {},
}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"layers": []}, "layers: expected statistics by name, got a list"),
        ({"layers": {"a": 3}}, "layers: expected numbers by name for 'a', got a int"),
        ({"layers": {"a": {"mean": "1"}}}, "layers: expected mean of 'a' to be a number or null, got '1'"),
        ({"layers": {"a": {"mean": True}}}, "layers: expected mean of 'a' to be a number or null, got True"),
        ({"blocks": {"a": {"mean": [1]}}}, "blocks: expected mean of 'a' to be a number or null"),
        ({"summary": None}, "summary: expected architecture, .*, got NoneType"),
        ({"summary": {"architecture": "Net"}}, "summary: expected architecture, .*, got .'architecture'."),
        ({"summary": GOOD["summary"] | {"step": 1.5}}, "summary: expected step to be a int or null, got 1.5"),
        ({"summary": GOOD["summary"] | {"data": 3}}, "summary: expected data to be a str or null, got 3"),
        ({"more": 1}, "with summary, layers, blocks, got .*'more'"),
        ({"layers": {"a": {"mean": 10**400}}}, "layers: expected mean of 'a' to be a number or null, got 1000"),
    ],
)
def test_a_damaged_file_is_one_sentence(tmp_path, change, words):
    (tmp_path / "a.json").write_text(json.dumps(GOOD))
    assert read(tmp_path / "a.json").layers == {"a": {"mean": 1.0}}
    (tmp_path / "a.json").write_text(json.dumps(GOOD | change))
    with pytest.raises(ValueError, match=words) as caught:
        read(tmp_path / "a.json")
    message = str(caught.value)
    assert message.startswith(str(tmp_path)) and "\n" not in message


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"\xff\xfe",
        b"[1]",
        b"3",
        b"[" * 100_000,
        json.dumps(GOOD).replace("1.0", "NaN").encode(),
        json.dumps(GOOD).replace("1.0", "1e999").encode(),
        json.dumps(GOOD)[:-20].encode(),
    ],
)
def test_what_is_no_such_file_is_one_sentence(tmp_path, content):
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(ValueError, match=r"a.json: .*expected") as caught:
        read(tmp_path / "a.json")
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 300 + len(str(tmp_path))
