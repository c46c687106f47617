import pytest

from sem.training.logging import CsvLog
from sem.training.plot import plot_curves


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
    with pytest.raises(ValueError, match="at least one figure to draw, got .*'other'"):
        plot_curves(table(tmp_path, other=1.0), tmp_path / "curves.png")
