import pytest

from sem.activations import Activations, plot_depth


def of(names, **values):
    return Activations(layers={name: dict(values) for name in names})


FULL = {"mean": 0.5, "std": 0.2, "dead_share": 0.1, "rel_amp_std": 0.3, "dc_share": 0.6}


def test_draws_a_picture(tmp_path):
    picture = plot_depth(of(["lift", "head"], **FULL), tmp_path / "a.png", "run")
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]


def test_panels_and_layers_are_named(tmp_path):
    layers = of(["lift", "a_b$c", "head"], **FULL)
    drawing = plot_depth(layers, tmp_path / "a.svg", "after step 4").read_text()
    titles = ("mean", "one standard deviation", "dead channels, share", "energy that is constant over positions, share")
    for comment in (*titles, "lift", "head", "after step 4"):
        assert f"<!-- {comment} -->" in drawing


def test_what_no_layer_has_is_left_out_and_gaps_stay(tmp_path):
    layers = Activations(layers={"a": FULL | {"dc_share": None}, "b": {"count": 0}, "c": {"mean": 1.0, "std": None}})
    drawing = plot_depth(layers, tmp_path / "a.svg").read_text()
    assert "<!-- energy that is constant over positions, share -->" not in drawing
    assert "<!-- dead channels, share -->" in drawing


def test_many_layers(tmp_path):
    drawing = plot_depth(of([f"layer{k}" for k in range(200)], **FULL), tmp_path / "a.svg").read_text()
    assert "<!-- layer0 -->" in drawing and "<!-- layer4 -->" in drawing and "<!-- layer5 -->" not in drawing


def test_nothing_to_draw(tmp_path):
    with pytest.raises(ValueError, match="at least one layer with a mean"):
        plot_depth(Activations(layers={"a": {"mean": None}}), tmp_path / "a.png")
    assert not list(tmp_path.iterdir())
