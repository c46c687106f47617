"""What a sweep's picture spans."""

import math

import pytest

from sem.sweeps.plot import _range, plot_curves
from sem.sweeps.results import RunResult


def run(losses, arm="plain"):
    return RunResult(arm, 0, "finished", loss=tuple(enumerate(losses)))


def test_one_spike_does_not_flatten_the_curves():
    losses = [1.0 - 0.004 * step for step in range(200)]
    losses[120] = 3e5
    low, top = _range(losses)
    assert 0 < low <= min(losses)
    assert 0.95 < top < 1.1


@pytest.mark.parametrize("losses", [[], [math.nan, math.inf], [0.0], [2.0, 2.0], [-1.0, 3.0]])
def test_there_is_always_a_range(losses):
    low, top = _range(losses)
    assert math.isfinite(low)
    assert math.isfinite(top)
    assert low < top
    assert all(low <= loss <= top for loss in losses if math.isfinite(loss))


@pytest.mark.parametrize("losses", [[0.5, math.nan, 0.4, 9e9], [0.0, 1.0], [-3.0, 2.0]])
def test_any_losses_are_drawn(tmp_path, losses):
    assert plot_curves([[run(losses)], [run([1.0, 0.9], "other")]], tmp_path / "curves.png")
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")


def test_nothing_is_no_picture(tmp_path):
    assert not plot_curves([[run([])]], tmp_path / "curves.png")
