"""What a check leaves behind."""

import json
import math

import pytest
import torch
from toy import ToyDiagnostics, toy_trainer

from sem.training.check import check_health
from sem.training.check.report import evidence, markdown, prepare_folder, write_report


def reported(folder, fail_from=None, **figures):
    """The evidence of a check of 3 steps, as read back, and what was written."""
    trainer = toy_trainer(folder / "run", fail_from=fail_from)
    trainer.diagnostics = lambda: ToyDiagnostics(**figures)
    result = check_health(trainer, 3)
    content = evidence(result, trainer, {"training.max_steps": 12})
    written = write_report(folder, content, result.criteria)
    return json.loads((folder / "check.json").read_text()), written


def test_evidence_says_what_ran_where_and_what_came_of_it(tmp_path):
    content, written = reported(tmp_path)
    assert [path.name for path in written] == ["check.json", "check.md", "check.png"]
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(path.name for path in written)
    assert (tmp_path / "check.png").read_bytes().startswith(b"\x89PNG")
    assert (content["verdict"], content["failed"]) == ("healthy", [])
    assert (content["steps_done"], content["steps_asked"], content["interrupted_by"]) == (3, 3, None)
    assert [step["step"] for step in content["steps"]] == [1, 2, 3]
    assert all({"loss", "grad_norm", "cg_true_residual"} <= set(step) for step in content["steps"])
    assert content["thresholds"]["cg_true_residual"] == {"expected": "< 0.0001", "limit": 1e-4}
    assert content["environment"]["torch"] == torch.__version__
    assert (content["device"], content["threads"]) == ("cpu", 1)
    assert content["effective_precision"] == {"ToyModel": "float32"}
    assert content["config"]["training"]["learning_rate"] == 0.01
    assert content["overrides"] == {"training.max_steps": 12}


def test_what_is_not_finite_is_kept_as_text(tmp_path):
    content, _ = reported(tmp_path, fail_from=3, unitary_divergence=math.inf)
    assert content["verdict"] == "failed"
    assert {"loss", "unitary_divergence", "skipped_steps"} <= set(content["failed"])
    assert content["steps"][1]["loss"] == "nan"
    assert content["steps"][0]["unitary_divergence"] == "inf"
    json.loads((tmp_path / "check.json").read_text(), parse_constant=pytest.fail)
    page = (tmp_path / "check.md").read_text()
    assert "| unitary_divergence | inf | inf | nan | inf | < 2 | FAIL |" in page


def test_table_in_markdown(tmp_path):
    content, _ = reported(tmp_path, cg_residual=2e-4)
    page = (tmp_path / "check.md").read_text()
    assert page == markdown(content)
    lines = page.splitlines()
    assert lines[0].startswith("`32-true`: **failed**. 3 of 3 steps of 64 tokens in 0 s on cpu, 1 threads, torch ")
    assert "Settings that differ from the file: `training.max_steps = 12`." in lines
    assert "| cg_residual | 0.0002 | 0.0002 | 0.0002 | 0.0002 | < 0.0001 | FAIL |" in lines
    assert "| cg_iterations_max | 4 | 4 | 4 | 4 |  |  |" in lines
    assert "| ToyModel | float32 |" in lines
    table = lines[lines.index("| quantity | first | last | mean | worst | healthy | verdict |") :]
    assert {line.count("|") for line in table[: len(content["rows"]) + 2]} == {8}


def test_the_step_of_the_worst_is_told(tmp_path):
    trainer = toy_trainer(tmp_path / "run")
    residuals = iter([1e-6, 3e-6, 2e-6])
    trainer.diagnostics = lambda: ToyDiagnostics(cg_residual=next(residuals))
    page = markdown(evidence(check_health(trainer, 3), trainer, {}))
    assert "| cg_residual | 1e-06 | 2e-06 | 2e-06 | 3e-06 (step 2) | < 0.0001 | pass |" in page


def test_a_training_run_s_folder_is_refused(tmp_path):
    trainer = toy_trainer(tmp_path / "own")
    with pytest.raises(ValueError, match="--output .*own: expected a folder of its own"):
        prepare_folder(tmp_path / "own", trainer.config)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "metrics.csv").write_text("step\n")
    with pytest.raises(ValueError, match="--output .*other"):
        prepare_folder(tmp_path / "other", trainer.config)
    prepare_folder(tmp_path / "new" / "check", trainer.config)
    assert (tmp_path / "new" / "check").is_dir()
