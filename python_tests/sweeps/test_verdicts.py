import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sem.sweeps import Figure, RunResult, beats, judge, prevents_collapse, same_curve, same_runs
from sem.sweeps.verdicts import SameRuns

ERROR = Figure("error", "test error")
NONE_SAME = SameRuns({}, {})
CURVE = ((1.0, 3.0), (2.0, 2.0))

values = st.lists(st.floats(allow_nan=True, allow_infinity=True), min_size=1, max_size=6)
collapses = st.lists(st.booleans(), max_size=6)


def runs(arm, errors, collapsed=None, **changes):
    collapsed = collapsed or [False] * len(errors)
    return [
        replace(RunResult(arm, seed, "finished", {"error": error}, collapse), **changes)
        for seed, (error, collapse) in enumerate(zip(errors, collapsed, strict=True))
    ]


def with_curve(arm, seed, *losses):
    return RunResult(arm, seed, "finished", {"error": 1.0}, loss=tuple((float(i), v) for i, v in enumerate(losses)))


@given(values, values, st.sampled_from(["lower", "higher"]))
def test_never_both_better(a, b, better):
    assert not (beats(a, b, better) and beats(b, a, better))


@given(values, st.sampled_from(["lower", "higher"]))
def test_nothing_beats_itself(a, better):
    assert not beats(a, a, better)


@given(values, values, st.sampled_from(["lower", "higher"]))
def test_better_means_that_every_seed_is_better_than_every_other(a, b, better):
    sign = 1 if better == "lower" else -1
    every = all(not math.isnan(x) and (math.isnan(y) or sign * x < sign * y) for x in a for y in b)
    # an infinite loss and NaN are equally bad
    if all(math.isnan(y) or sign * y == math.inf for y in b):
        every = every and all(sign * x < math.inf for x in a)
    assert beats(a, b, better) == every


@given(collapses, collapses)
def test_never_both_prevent(a, b):
    assert not (prevents_collapse(a, b) and prevents_collapse(b, a))


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [
        ("000", "110", True),
        ("000", "111", True),
        ("0000", "1100", True),
        ("000", "100", False),
        ("001", "111", False),
        ("00", "11", False),
        ("000", "11", False),
    ],
)
def test_collapse_rule(a, b, expected):
    assert prevents_collapse([c == "1" for c in a], [c == "1" for c in b]) is expected


def test_the_worst_against_the_best():
    a, b = runs("a", [1.0, 1.2, 1.1]), runs("b", [1.3, 1.9, 1.25])
    for verdict in (judge(a, b, ERROR, NONE_SAME), judge(b, a, ERROR, NONE_SAME)):
        assert (verdict.kind, verdict.arms) == ("better", ("a", "b"))
        assert verdict.text == "a is better than b in test error: the worst of 3 seeds, 1.2, beats the best, 1.25"
    higher = Figure("error", "score", "higher")
    assert judge(a, b, higher, NONE_SAME).arms == ("b", "a")


def test_overlap_is_not_decided():
    verdict = judge(runs("a", [1.0, 1.2, 1.3]), runs("b", [1.3, 1.9, 1.4]), ERROR, NONE_SAME)
    assert (verdict.kind, verdict.text) == ("undecided", "a and b, test error: not decided by 3 seeds")


def test_a_diverged_arm_loses():
    a, b = runs("a", [1.0, 1.2, 1.3]), runs("b", [math.nan, math.nan, math.inf])
    assert judge(b, a, ERROR, NONE_SAME).arms == ("a", "b")
    assert judge(a, runs("b", [math.nan, 0.5, 0.5]), ERROR, NONE_SAME).kind == "undecided"


def test_two_seeds_decide_nothing():
    verdict = judge(runs("a", [1.0, 1.0]), runs("b", [9.0, 9.0]), ERROR, NONE_SAME)
    assert verdict.kind == "undecided"
    assert verdict.text.endswith("nothing is decided by 2 seeds; expected at least 3")
    verdict = judge(runs("a", [1.0, 1.0]), runs("b", [9.0, 9.0], [True, True]), None, NONE_SAME)
    assert verdict.kind == "undecided"


def test_only_seeds_that_both_have_finished_count():
    a, b = runs("a", [1.0, 1.0, 1.0, 1.0]), runs("b", [2.0, 2.0, 2.0, 0.5])
    waiting = [*b[:3], replace(b[3], state="waiting", figures={})]
    assert judge(a, waiting, ERROR, NONE_SAME).kind == "better"
    assert judge(a, b, ERROR, NONE_SAME).kind == "undecided"


def test_a_failed_seed_leaves_it_open():
    a, b = runs("a", [1.0] * 4), runs("b", [2.0] * 4)
    verdict = judge(a, [*b[:3], replace(b[3], state="failed", figures={})], ERROR, NONE_SAME)
    assert (verdict.kind, verdict.text) == ("undecided", "a and b, test error: not decided, seed 3 of b failed")


def test_collapse_is_a_question_of_its_own():
    a, b = runs("a", [1.0] * 3), runs("b", [1.0] * 3, [True, False, True])
    verdict = judge(b, a, None, NONE_SAME)
    assert (verdict.kind, verdict.arms, verdict.question) == ("prevents", ("a", "b"), "collapse")
    assert verdict.text == "a prevents collapse, b does not: 0/3 against 2/3 collapsed"


def test_the_same_run_is_not_ranked():
    found = same_runs([with_curve("a", 0, 3.0, 2.0), with_curve("b", 0, 3.0, 2.0), with_curve("c", 0, 3.0, 2.5)])
    assert (found.arms, found.seeds) == ({("a", "b"): (0,)}, {})
    (sentence,) = found.sentences
    assert sentence.startswith("same run: a and b agree in every digit of their loss curves (seed 0)")
    a, b = runs("a", [1.0] * 3), runs("b", [2.0] * 3)
    assert judge(a, b, ERROR, found).kind == judge(b, a, None, found).kind == "same"
    assert judge(a, runs("c", [2.0] * 3), ERROR, found).kind == "better"


def test_seeds_that_did_not_arrive_decide_nothing():
    found = same_runs([with_curve("a", seed, 3.0, 2.0) for seed in range(3)])
    assert (found.arms, found.seeds) == ({}, {"a": (0, 1, 2)})
    verdict = judge(runs("a", [1.0] * 3), runs("b", [2.0] * 3), ERROR, found)
    assert verdict.text.endswith("not decided, seeds 0, 1, 2 of a are the same run")


@pytest.mark.parametrize(
    ("a", "b", "same"),
    [
        ((3.0, 2.0), (3.0, 2.0), True),
        ((3.0, 2.0), (3.0, math.nextafter(2.0, 3.0)), False),
        ((3.0, 2.0), (3.0, 2.0, 1.0), False),
        ((3.0,), (3.0,), False),  # the first loss, before any step, may well be the same
        ((), (), False),
        ((math.nan,) * 5, (math.nan,) * 5, False),
        ((3.0, 2.0, math.nan), (3.0, 2.0, math.nan), True),
    ],
)
def test_every_digit(a, b, same):
    assert same_curve(with_curve("a", 0, *a), with_curve("b", 0, *b)) is same


def test_validation_losses_belong_to_the_curve():
    a = replace(with_curve("a", 0, 3.0, 2.0), validation=CURVE)
    assert same_curve(a, replace(a, arm="b"))
    assert not same_curve(a, replace(a, validation=((1.0, 3.0), (2.0, 2.5))))


def test_runs_of_other_seeds_and_unfinished_ones_are_not_compared():
    a, b = with_curve("a", 0, 3.0, 2.0), with_curve("b", 1, 3.0, 2.0)
    assert same_runs([a, b]) == NONE_SAME
    assert same_runs([a, replace(b, seed=0, state="interrupted")]) == NONE_SAME
