import pytest
from toy_sweep import experiment

from sem.sweeps import Arm, planned, read_arms


def read(tmp_path, text):
    path = tmp_path / "arms.yaml"
    path.write_text(text, encoding="utf-8")
    return read_arms(path, experiment())


def test_arms_in_their_order(tmp_path):
    text = "arms:\n  plain:\n  Fast-2.b: ['toy.level=0.5', 'toy.mode=good = x']\n  none: ['toy.level=']\n"
    assert read(tmp_path, text) == [
        Arm("plain"),
        Arm("Fast-2.b", ("toy.level=0.5", "toy.mode=good = x")),
        Arm("none", ("toy.level=",)),
    ]


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "arms: expected a mapping of 1 to 1000 names to lists of section.key=value, got None"),
        ("arms: {}", "expected a mapping of 1 to 1000 names"),
        ("arms: [a, b]", "expected a mapping of 1 to 1000 names"),
        ("just a text", "expected a mapping of sections"),
        ("arms: {a: }\nseeds: 3", "'seeds': expected no key but arms"),
        ("arms: {a: , a: }", "key 'a' is given twice"),
        ("arms: {a: &x [toy.level=2], b: *x}", "expected every value written out, got an alias"),
        ("arms: {no: }", "arm False: expected a text as its name, in quotes"),
        ("arms: {1: }", "arm 1: expected a text as its name"),
        ("arms: {'': }", "arm '': expected as its name, which is also a folder's"),
        ("arms: {../up: }", "arm '../up': expected as its name"),
        ("arms: {/etc: }", "expected as its name"),
        ("arms: {.hidden: }", "expected as its name"),
        ("arms: {a b: }", "expected as its name"),
        ("arms: {dot.: }", "expected as its name"),
        ("arms: {nul.x: }", "expected as its name"),
        ('arms: {"a\\n": }', "expected as its name"),
        ('arms: {"é": }', "expected as its name"),
        (f"arms: {{{'a' * 65}: }}", "expected as its name"),
        ("arms: {trial-1: }", "expected a name that does not begin with trial-"),
        ("arms: {a: , A: [toy.level=2]}", "arm 'A': expected a name that differs from 'a' in more than capitals"),
        ("arms: {a: toy.level=2}", "arm 'a': expected a list of section.key=value, got 'toy.level=2'"),
        ("arms: {a: {toy.level: 2}}", "expected a list of section.key=value"),
        ("arms: {a: [toy.level]}", "expected section.key=value, got 'toy.level'"),
        ("arms: {a: [level=2]}", "expected section.key=value, got 'level=2'"),
        ("arms: {a: [3]}", "expected section.key=value, got 3"),
        ("arms: {a: [--toy.level=2]}", "expected section.key=value, got '--toy.level=2'"),
        ('arms: {a: ["toy.level=1\\0"]}', "expected section.key=value"),
        ('arms: {a: ["toy.level=\\ud800"]}', "expected section.key=value"),
        ("arms: {a: [toy.level=2, toy.level=3]}", "expected toy.level once, got it again in 'toy.level=3'"),
        ("arms: {a: [toy.steps=9]}", "arm 'a': expected no toy.steps: every arm has the same budget"),
        ("arms: {a: [other.level=2]}", "arm a: other.level: unknown key"),
        ("arms: {a: , b: []}", "arm b: expected other settings than those of arm a"),
        ("arms: {a: [toy.level=2], b: [toy.level=2]}", "arm b: expected other settings than those of arm a"),
    ],
)
def test_one_sentence_for_a_mistake(tmp_path, text, complaint):
    with pytest.raises(ValueError) as error:
        read(tmp_path, text)
    (line,) = str(error.value).split("\n")
    assert line.startswith(f"{tmp_path / 'arms.yaml'}: ") and complaint in line


def test_a_sentence_for_each_mistake(tmp_path):
    with pytest.raises(ValueError) as error:
        read(tmp_path, "arms: {good: , a/b: , c: [toy.steps=1, x], d: [other.x=1]}")
    assert len(str(error.value).split("\n")) == 4


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(ValueError, match="cannot be read"):
        read_arms(tmp_path / "none.yaml", experiment())


def test_seeds_are_outermost_and_arms_take_turns_in_going_first():
    arms = [Arm("a"), Arm("b"), Arm("c")]
    order = [(arm.name, seed) for arm, seed in planned(arms, [4, 5, 6])]
    assert [seed for _, seed in order] == [4, 4, 4, 5, 5, 5, 6, 6, 6]
    assert [name for name, _ in order] == ["a", "b", "c", "b", "c", "a", "c", "a", "b"]
    assert len(set(order)) == 9
