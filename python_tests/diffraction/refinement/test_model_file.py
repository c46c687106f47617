"""Models as files: read again as they were written, found from anywhere, and a sentence for what is none."""

import json

import pytest
import torch
from refinement_problems import FLAGS, simulator_at

from sem.diffraction.refinement import Model, read_model, write_model


def test_a_model_is_read_as_it_was_written(tmp_path):
    model = Model(FLAGS, {"crystal.misset": [1.0, 2.0, 3.0], "detector.distance": 51.5}, {"status": "converged"})
    write_model(tmp_path / "model.json", model)
    again = read_model(tmp_path / "model.json")
    assert again == model
    simulator = again.simulator()
    assert simulator.crystal.misset.tolist() == [1.0, 2.0, 3.0] and float(simulator.detector.distance) == 51.5
    assert again.simulator() is not simulator  # each its own


def test_flags_in_a_file_and_files_beside_it(tmp_path, monkeypatch):
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / "f.hkl").write_text("1 0 0 5\n0 1 0 7\n")
    (folder / "start.flags").write_text(
        "# a crystal\n" + " ".join(FLAGS[:7]) + "  # its cell\n-hkl f.hkl -detpixels 8\n"
    )
    monkeypatch.chdir(tmp_path)
    model = read_model("data/start.flags")
    table = model.simulator().reflections.table
    assert table is not None and table.max() == 7
    digest = model.digest()
    (folder / "f.hkl").write_text("1 0 0 5\n0 1 0 8\n")
    assert model.digest() != digest
    assert model.simulator().reflections.table.max() == 8  # not that of before
    assert torch.equal(simulator_at().crystal.lengths, model.simulator().crystal.lengths)


def test_a_matrix_becomes_a_cell_that_may_be_refined(tmp_path):
    (tmp_path / "a.mat").write_text("0.0125 0.003 0.001\n-0.002 0.0119 -0.0007\n0.0004 0.0005 0.0138\n")
    flags = "-mat a.mat -misset 10 20 30 -N 5 -default_F 60 -lambda 1 -detpixels 24 -pixel 0.5 -oversample 2"
    (tmp_path / "start.flags").write_text(f"{flags} -physics exact")
    model = read_model(tmp_path / "start.flags")
    made = model.with_cell()
    names = [name for name, _ in made.simulator().named_parameters()]
    assert "crystal.lengths" in names and "crystal.reciprocal" not in names and made.with_cell() is made
    image = model.simulator()().detach()
    assert float((made.simulator()().detach() - image).abs().max()) < 1e-4 * float(image.max())
    (tmp_path / "start.flags").write_text(flags)
    with pytest.raises(ValueError, match=r"crystal: expected -physics exact to refine the cell .* by, got nanobragg"):
        read_model(tmp_path / "start.flags").with_cell()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "expected flags as on a command line, got none"),
        ("-cell '70", "expected flags as on a command line"),
        ("{", "expected a model in JSON"),
        ('{"format": "other"}', "expected 'sem diffraction model 1' as its format, got 'other'"),
        ('{"__id__": "ExperimentList"}', "expected flags, -expt model.json among them, got the dxtbx experiment"),
        (json.dumps({"format": "sem diffraction model 1", "flags": "-N 5"}), "expected a list of texts as flags"),
        (
            json.dumps({"format": "sem diffraction model 1", "flags": [], "parameters": [1]}),
            "expected values by name as parameters",
        ),
    ],
)
def test_files_that_are_no_model(tmp_path, text, message):
    path = tmp_path / "model.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=message):
        read_model(path)
    with pytest.raises(ValueError, match="cannot be read"):
        read_model(tmp_path / "none.json")


@pytest.mark.parametrize("value", [[1.0], None, "x", [1.0, 2.0, float("nan")], [[1.0], [2.0, 3.0]]])
def test_values_that_do_not_fit_a_parameter(value):
    with pytest.raises(ValueError, match=r"parameters: expected finite numbers of shape \[3\] for crystal.misset"):
        Model(FLAGS, {"crystal.misset": value}).simulator()
    with pytest.raises(ValueError, match="expected names of this experiment's parameters, got 'crystal.colour'"):
        Model(FLAGS, {"crystal.colour": value}).simulator()
