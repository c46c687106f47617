import math

import pytest
import torch

from sem.trace import Trace, compare, read_trace
from sem.trace.record import Entry


def trace(**values):
    result = Trace()
    for name, value in values.items():
        result.add(name, value)
    return result


def test_a_file_gives_back_every_bit(tmp_path):
    written = Trace({"operator": "test", "dtype": "torch.float32"})
    written.add("single", torch.tensor([0.1, 1 / 3, 1e-45, 3e38]))
    written.add("double", torch.tensor(1 / 3, dtype=torch.float64))
    written.add("wave", torch.tensor([1 - 2j, 0.5j]))
    written.add("extreme", [math.inf, -math.inf, math.nan, -0.0])
    written.add("count", 3)
    written.save(tmp_path / "t.txt")
    read = read_trace(tmp_path / "t.txt")
    assert read.header == written.header
    assert read.text() == written.text()
    assert read.entries[0].values == tuple(torch.tensor([0.1, 1 / 3, 1e-45, 3e38]).double().tolist())
    assert read.entries[2].values == (1.0, -2.0, 0.0, 0.5)


def test_lines_of_another_program_are_read(tmp_path):
    path = tmp_path / "log.txt"
    path.write_text(
        "reading the input\nTRACE: h = 1.25\nTRACE: pix0_vector = -0.1 0.2, 3e-2 meters\nname with words = 7\n"
        "mode = fast\nrotation 1 2 3\n\nh=2.5\n"
    )
    assert read_trace(path).entries == [
        Entry("h", (1.25,)),
        Entry("pix0_vector", (-0.1, 0.2, 0.03)),
        Entry("name with words", (7.0,)),
        Entry("h", (2.5,)),
    ]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "found none"),
        (b"nothing here\n", "found none"),
        (b"# sem trace\nx = 1.0\ny = 1.0 2.\x30.3\n", "line 3"),
        (b"# sem trace\nx = 1.0\ny 2.0\n", "line 3"),
        (b"\xff\xfe\x00", "binary"),
    ],
)
def test_a_damaged_file_is_refused_in_words(tmp_path, content, words):
    path = tmp_path / "bad.txt"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=words) as caught:
        read_trace(path)
    assert str(path) in str(caught.value)


def test_the_first_divergence_is_the_earliest_of_the_first_trace():
    left, right = trace(a=1.0, b=[1.0, 2.0], c=3.0, d=4.0), trace(d=5.0, c=3.1, b=[1.0, 2.0 + 1e-9], a=1.0)
    result = compare(left, right)
    assert result.first_divergence.name == "c"
    assert [row.name for row in result.rows if row.differs] == ["c", "d"]
    assert result.first_divergence.error == pytest.approx(0.1 / 3.1)
    assert compare(left, right, tolerance=0.5).first_divergence is None


def test_the_tolerance_is_relative_to_the_largest_value_and_can_have_an_absolute_part():
    left, right = trace(x=[1000.0, 0.0]), trace(x=[1000.0, 5e-4])
    assert compare(left, right, 1e-6).first_divergence is None
    assert compare(left, right, 1e-7).first_divergence.worst == 1
    assert compare(left, right, 1e-7, absolute=1e-3).first_divergence is None


def test_equal_names_are_aligned_by_their_turn():
    left, right = Trace(), Trace()
    for step in (1.0, 2.0, 3.0):
        left.add("residual", step)
        right.add("residual", step if step < 3 else 9.0)
    assert compare(left, right).first_divergence.name == "residual#3"


@pytest.mark.parametrize(
    ("left", "right", "differs"),
    [
        (math.nan, math.nan, False),
        (math.inf, math.inf, False),
        (math.inf, -math.inf, True),
        (math.nan, 1.0, True),
        (1.0, math.inf, True),
        ([1.0, 2.0], [1.0], True),
        (0.0, -0.0, False),
    ],
)
def test_what_is_not_finite_or_has_another_length(left, right, differs):
    assert (compare(trace(x=left), trace(x=right)).first_divergence is not None) == differs


def test_what_one_trace_alone_has_is_listed_and_is_no_divergence():
    result = compare(trace(a=1.0, b=2.0), trace(b=2.0, c=3.0))
    assert [(row.name, row.error) for row in result.rows] == [("a", None), ("b", 0.0), ("c", None)]
    assert (result.first_divergence, result.compared) == (None, 1)


def test_traces_without_a_common_name_and_bad_tolerances_are_refused():
    with pytest.raises(ValueError, match="no name in common: the first begins with a, the other with b"):
        compare(trace(a=1.0), trace(b=1.0))
    for bad in (-1.0, math.nan):
        with pytest.raises(ValueError, match="tolerance"):
            compare(trace(a=1.0), trace(a=1.0), bad)
        with pytest.raises(ValueError, match="absolute"):
            compare(trace(a=1.0), trace(a=1.0), absolute=bad)


def test_long_lines_take_no_longer_than_their_length(tmp_path):
    path = tmp_path / "trace.txt"
    path.write_text("TRACE: h = 1.5 A\n" + ("a" + " " * 200_000 + "b\n") * 3 + "k" * 200_000 + "\nTRACE: k=2\n")
    assert [(entry.name, entry.values) for entry in read_trace(path).entries] == [("h", (1.5,)), ("k", (2.0,))]
