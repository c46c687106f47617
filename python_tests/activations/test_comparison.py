import math

import pytest
import torch
from torch import nn

from sem.activations import Activations, compare, measure


def of(**layers):
    return Activations(layers=layers)


def changes(first, second, **options):
    found = compare(first, second, **options)
    return [(change.name, change.statistic, pytest.approx(change.relative)) for change in found.changes]


def test_largest_relative_changes_come_first():
    first = of(a={"std": 1.0, "mean_abs": 1.0}, b={"std": 4.0, "zero_share": 0.0})
    second = of(a={"std": 1.1, "mean_abs": 0.25}, b={"std": 4.0, "zero_share": 0.5})
    assert changes(first, second) == [("b", "zero_share", 1.0), ("a", "mean_abs", 0.75), ("a", "std", 1 / 11)]
    found = compare(first, second)
    assert (found.compared, found.changes[1].before, found.changes[1].after) == (4, 1.0, 0.25)


def test_layers_that_one_lacks_are_listed():
    first, second = of(a={"std": 1.0}, b={"std": 1.0}), of(c={"std": 1.0}, a={"std": 1.0})
    found = compare(first, second)
    assert (found.changes, found.only_first, found.only_second) == ([], ("b",), ("c",))
    with pytest.raises(ValueError, match="a layer that both have: the first has b, the second none"):
        compare(of(b={}), of())


def test_blocks_are_compared_too():
    first, second = (Activations(blocks={"0": {"residual_ratio": ratio}}) for ratio in (0.1, 0.2))
    assert changes(first, second) == [("block 0", "residual_ratio", 0.5)]


def test_places_are_measured_by_the_deviation():
    first, second = of(a={"mean": 1e-9, "p50": 0.0, "std": 2.0}), of(a={"mean": -1e-9, "p50": 0.2, "std": 2.0})
    assert changes(first, second) == [("a", "p50", 0.1)]
    assert changes(first, second, tolerance=0.0) == [("a", "p50", 0.1), ("a", "mean", 1e-9)]
    amplitudes = [of(a={"amplitude_p1": value, "amplitude_std": 0.5, "std": 9.0}) for value in (0.0, 0.1)]
    assert changes(*amplitudes) == [("a", "amplitude_p1", 0.2)]


def test_one_zero_among_millions_is_no_change_to_speak_of():
    first, second = of(a={"zero_share": 0.0, "dead_share": 0.0}), of(a={"zero_share": 1e-6, "dead_share": 0.02})
    assert changes(first, second) == [("a", "dead_share", 1.0), ("a", "zero_share", 1e-4)]


def test_phases_go_around():
    first, second = (of(a={"phase_mean": value, "phase_p5": value}) for value in (math.pi - 0.1, 0.1 - math.pi))
    assert changes(first, second) == [
        ("a", "phase_p5", (2 * math.pi - 0.2) / math.pi),
        ("a", "phase_mean", 0.2 / math.pi),
    ]


def test_what_is_undefined_on_one_side_moved_most():
    first, second = of(a={"std": 1.0, "dc_share": None, "mean_abs": 1.0}), of(a={"std": None, "dc_share": None})
    assert changes(first, second) == [("a", "std", math.inf), ("a", "mean_abs", math.inf)]


def test_what_tells_of_the_data_is_not_compared():
    first = of(a={"count": 3, "percentile_error": 1.0, "amplitude_percentile_error": 1.0, "nonfinite": 0})
    second = of(a={"count": 9, "percentile_error": 2.0, "amplitude_percentile_error": 2.0, "nonfinite": 1})
    assert changes(first, second) == [("a", "nonfinite", 1.0)]


@pytest.mark.parametrize("tolerance", [-1.0, math.nan])
def test_impossible_tolerance(tolerance):
    with pytest.raises(ValueError, match="tolerance: expected a number >= 0"):
        compare(of(), of(), tolerance)


def test_a_model_against_itself_and_against_a_trained_one():
    torch.manual_seed(0)
    model, batches = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2)), [torch.randn(50, 4)]
    before = measure(model, batches)
    assert compare(before, measure(model, batches)).changes == []
    with torch.no_grad():
        model[2].weight *= 2
    assert {change.name for change in compare(before, measure(model, batches)).changes} == {"2"}
