import math

import pytest

from sem.training.health import above, below, finite, rises
from sem.training.logging import CsvLog
from sem.training.plot import draw, health_panels, plot_curves


def table(folder, **figures):
    log = CsvLog(folder / "metrics.csv")
    for step in range(1, 4):
        log.write(step, {name: value / step for name, value in figures.items()})
    log.close()
    return folder / "metrics.csv"


def test_draws_a_picture(tmp_path):
    source = table(tmp_path, bits_per_byte=3.0, val_bits_per_byte=3.1, cg_residual=1e-6, learning_rate=1e-3)
    picture = plot_curves(source, tmp_path / "curves.png", {"order 3": 2.5}, title="run")
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_panels_and_baselines_are_drawn(tmp_path):
    source = table(tmp_path, bits_per_byte=3.0, grad_norm=1.0)
    drawing = plot_curves(source, tmp_path / "curves.svg", {"order 3": 2.5}).read_text()
    for comment in ("bits per byte", "gradient norm", "order 3"):
        assert f"<!-- {comment} -->" in drawing
    assert "<!-- learning rate -->" not in drawing


def test_nothing_to_draw_is_an_error(tmp_path):
    with pytest.raises(ValueError, match=r"metrics.csv: expected at least one figure to draw, got .*'other'"):
        plot_curves(table(tmp_path, other=1.0), tmp_path / "curves.png")
    assert [path.name for path in tmp_path.iterdir()] == ["metrics.csv"]


def test_health_panels_show_what_is_judged_and_its_limit():
    criteria = [below("residual", 1e-4), above("sparsity", 0.3), finite("loss"), rises("entropy", "b", "a")]
    residual, sparsity, loss, entropy = health_panels(criteria)
    assert (residual.lines, residual.log) == ({"< 0.0001": 1e-4}, True)
    assert (sparsity.lines, sparsity.log) == ({"> 0.3": 0.3}, False)
    assert (loss.figures, loss.lines) == (("loss",), {})
    assert (entropy.figures, entropy.lines) == (("b", "a"), {})


def test_what_is_not_finite_is_marked(tmp_path):
    rows = [{"step": 1, "residual": 1e-6}, {"step": 2, "residual": math.nan}, {"step": 3}]
    panels = health_panels([below("residual", 1e-4), below("absent", 1.0)])
    drawing = draw(rows, panels, tmp_path / "health.svg", "title").read_text()
    for comment in ("residual", "&lt; 0.0001", "not finite", "title"):
        assert f"<!-- {comment} -->" in drawing
    assert "<!-- absent -->" not in drawing
    assert "not finite" not in draw(rows[:1], panels, tmp_path / "healthy.svg").read_text()


@pytest.mark.filterwarnings("error")
def test_nothing_positive_can_still_be_drawn(tmp_path):
    rows = [{"step": 1, "residual": math.nan}, {"step": 2, "residual": 0.0}]
    assert draw(rows, health_panels([below("residual", 1e-4)]), tmp_path / "health.png").stat().st_size > 0
