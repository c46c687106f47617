"""The stability gate: healthy runs pass, and each planted fault fails the row that is there for it."""

import itertools
import math
import signal

import pytest
import torch
from toy import HEALTHY, RecordingDisplay, ToyDiagnostics, toy_config, toy_trainer

from sem.config import SEMConfig
from sem.ops import SolveInfo, SolveStatus, cayley, cg_solve, laplacian_matvec, pit
from sem.precision import PrecisionPolicy
from sem.propagator import cayley_soliton
from sem.training.check import HELD_OUT_TARGETS, CheckDisplay, check_health, check_trainer
from sem.training.evaluation import evaluate

NOT_FINITE = {"loss", "grad_norm", "skipped_steps", "non_finite_figures"}


def small_config(*overrides):
    return SEMConfig().with_overrides(
        "model.hidden_dim=32",
        "model.num_layers=1",
        "model.max_seq_length=32",
        "encoder.kind=transport",
        "encoder.sdr_candidates=16",
        "encoder.sdr_sparsity=8",
        "encoder.projection_dim=8",
        "spinor.state_dim=4",
        "spinor.mimo_groups=4",
        "propagator.num_layers=2",
        "propagator.pit_enabled=true",
        "propagator.potential=none",
        "training.batch_size=4",
        "training.warmup_steps=5",
        "training.learning_rate=0.01",
        "training.num_threads=1",
        "training.device=cpu",
        *overrides,
    )


def check(*overrides, steps=4, plant=None, **options):
    trainer = check_trainer(small_config(*overrides), synthetic=True)
    if plant is not None:
        plant(trainer)
    return check_health(trainer, steps, **options)


def failed(result):
    return {row.name for row in result.failed}


def rows_of(result):
    return {row.name: row for row in result.rows}


@pytest.mark.parametrize("mode", ["32-true", "bf16-mixed", "selective-bf16"])
def test_a_healthy_run_passes(mode):
    result = check(f"training.precision_mode={mode}")
    assert failed(result) == set()
    rows = rows_of(result)
    assert rows["val_loss_change"].worst == pytest.approx(rows["val_loss"].last - rows["val_loss"].first)
    assert 0 < rows["cg_true_residual"].worst < 1e-5
    assert {
        "cg_iterations_mean",
        "cg_iterations_max",
        "cg_unconverged",
        "phase_entropy_before",
        "phase_entropy_after",
        "tokens_per_second",
        "peak_memory_mib",
    } <= set(rows)
    assert result.precision["propagator"].startswith("float32")
    assert ("propagator" in result.autocast_reached) == (mode == "bf16-mixed")


def in_bfloat16(wave):
    return torch.view_as_complex(torch.view_as_real(wave).bfloat16().float())


def solve_in_bfloat16(psi, *arguments, **options):
    out, info = cayley(in_bfloat16(psi), *arguments, **options)
    return in_bfloat16(out), info


def solve_in_bfloat16_and_hide_it(psi, *arguments, **options):
    out, info = solve_in_bfloat16(psi, *arguments, **options)
    return out * (psi.norm(dim=-1, keepdim=True) / out.norm(dim=-1, keepdim=True)), info


def normal_equations(sign, lie=False):
    """The Cayley step by plain conjugate gradients, with its preconditioner times ``sign``."""

    def solve(psi, weight, graph, a, tol, max_iter, *, on_failure, return_info):
        h = laplacian_matvec(torch.eye(graph.nodes), weight, graph).to(psi.dtype)
        inverse = sign / (1 + (a * h.diagonal().real) ** 2)
        y, info = cg_solve(
            lambda v: v + a * a * ((v @ h) @ h),
            psi - 1j * a * (psi @ h),
            precond=lambda v: v * inverse,
            rtol=tol / 10,
            max_iter=max_iter,
            on_failure=on_failure,
        )
        if lie:
            fine = torch.full_like(info.status, SolveStatus.CONVERGED)
            info = SolveInfo(fine, info.iterations, torch.zeros_like(info.residual))
        return 2 * y - psi, info

    return solve


@pytest.mark.parametrize(
    ("solver", "rows"),
    [
        (solve_in_bfloat16, {"cg_true_residual", "unitarity_deviation"}),
        (solve_in_bfloat16_and_hide_it, {"cg_true_residual"}),
        (normal_equations(+1), set()),
        (normal_equations(-1), {"cg_residual", "cg_true_residual"}),
        (normal_equations(-1, lie=True), {"cg_true_residual"}),
    ],
    ids=["bfloat16", "bfloat16, hidden", "right sign", "wrong sign", "wrong sign, hidden"],
)
def test_a_faulty_solver_cannot_report_itself_healthy(solver, rows, monkeypatch):
    def step(self, psi, weights, return_info=False):
        turned = pit(psi, None, weights.strength, self.pit_num_bins, self.pit_rule, kerr=weights.kerr)
        limits = self.half_dt, self.cg_tol, self.cg_max_iter
        options = {"on_failure": self.on_failure, "return_info": True}
        out, info = solver(turned, weights.edge_weight, self.hamiltonian.topology, *limits, **options)
        return (out, info) if return_info else out

    monkeypatch.setattr(cayley_soliton.CayleySolitonPropagator, "step", step)
    assert failed(check("propagator.cayley_dt=0.1")) == rows


def test_too_few_iterations_fail():
    result = check("propagator.cayley_dt=3", "propagator.cg_max_iter=1")
    assert (
        {"cg_residual", "cg_true_residual"}
        <= failed(result)
        <= {
            "cg_residual",
            "cg_true_residual",
            "unitarity_deviation",
        }
    )
    assert rows_of(result)["cg_unconverged"].worst == 1


def test_nan_in_a_parameter_fails():
    def plant(trainer):
        with torch.no_grad():
            trainer.model.propagator.layers[0].kerr[3] = math.nan

    result = check("training.max_skipped_steps=2", plant=plant)
    assert NOT_FINITE | {"val_loss_change", "non_finite_parameters"} <= failed(result)
    assert len(result.steps) == 2 and "2 steps in a row failed" in result.diverged
    assert rows_of(result)["non_finite_parameters"].worst == 1


def test_nan_that_the_loss_never_meets_fails():
    def plant(trainer):
        trainer.model.register_buffer("spare", torch.tensor([1.0, math.inf]))

    assert failed(check(plant=plant)) == {"non_finite_parameters"}


def test_nan_in_a_single_batch_fails():
    def plant(trainer):
        trainer.objective = Poisoned(trainer.objective, call=3)

    result = check(plant=plant)  # two micro-batches per step: the second step
    assert failed(result) == NOT_FINITE
    assert rows_of(result)["loss"].step == 2


class Poisoned:
    """An objective whose loss is NaN in one call with gradients."""

    def __init__(self, objective, call):
        self.objective, self.unit, self.report = objective, objective.unit, objective.report
        self.call, self.calls = call, 0

    def __call__(self, model, batch, diagnostics):
        figures = self.objective(model, batch, diagnostics)
        self.calls += model.training
        return figures | {"loss": figures["loss"] * math.nan} if self.calls == self.call else figures


def test_bunching_phases_fail(monkeypatch):
    weights = cayley_soliton.CayleySolitonPropagator.weights

    def bunching(self):
        right = weights(self)
        return right._replace(strength=-right.strength)

    monkeypatch.setattr(cayley_soliton.CayleySolitonPropagator, "weights", bunching)
    result = check()
    assert failed(result) == {"phase_entropy"}
    assert rows_of(result)["phase_entropy"].worst < 0


def test_a_learning_rate_that_is_too_high_fails():
    result = check("training.learning_rate=100", "training.warmup_steps=0", "training.gradient_clip=0")
    assert "val_loss_change" in failed(result)
    assert rows_of(result)["val_loss_change"].worst > 0


def test_a_model_that_does_not_learn_fails():
    def plant(trainer):
        for parameter in trainer.model.parameters():
            parameter.requires_grad_(parameter is trainer.model.propagator.layers[1].pit_strength)

    assert failed(check("training.learning_rate=1e-12", plant=plant)) == {"val_loss_change"}


def test_autocast_that_reaches_what_the_mode_pins_fails(monkeypatch):
    monkeypatch.setattr(PrecisionPolicy, "stage_context", lambda self, pinned: self._autocast(True))
    result = check("training.precision_mode=selective-bf16")
    assert failed(result) == {"autocast_leaks"}
    assert rows_of(result)["autocast_leaks"].worst == result.autocast_reached["propagator"]


def test_health_can_be_measured_less_often():
    result = check(steps=5, every=2)
    assert [step["step"] for step in result.steps if "cg_residual" in step] == [1, 2, 4]
    assert all("loss" in step and "grad_norm" in step for step in result.steps)
    assert failed(result) == set()


def test_a_plateau_which_no_validation_ends_is_checked_too():
    assert failed(check("training.scheduler=plateau")) == set()


def test_ctrl_c_ends_the_check_and_judges_what_was_seen():
    class Interrupting(RecordingDisplay):
        def update(self, step, *arguments):
            if step == 2:
                signal.raise_signal(signal.SIGINT)

    result = check(steps=50, display=Interrupting())
    assert (len(result.steps), result.asked, result.interrupted_by) == (2, 50, "SIGINT")
    assert failed(result) == set()


@pytest.mark.parametrize(
    ("steps", "every", "words"), [(0, 1, "--steps 0"), (13, 1, "max_steps = 12"), (5, 0, "--every 0")]
)
def test_impossible_numbers_are_errors(steps, every, words, tmp_path):
    with pytest.raises(ValueError, match=words):
        check_health(toy_trainer(tmp_path), steps, every)


def toy_check(folder, steps=3, fail_from=None, **figures):
    trainer = toy_trainer(folder, fail_from=fail_from)
    trainer.diagnostics = lambda: ToyDiagnostics(**figures)
    return check_health(trainer, steps)


def test_nothing_is_written(tmp_path):
    assert failed(toy_check(tmp_path / "run")) == set()
    assert not (tmp_path / "run").exists()


def test_failing_rows_are_named(tmp_path):
    result = toy_check(tmp_path, cg_residual=0.1, phase_entropy_after=0.1)
    assert failed(result) == {"cg_residual", "phase_entropy"}


def test_a_single_bad_step_fails(tmp_path):
    trainer = toy_trainer(tmp_path)
    deviations = iter([1e-6, 0.5, 1e-6])
    trainer.diagnostics = lambda: ToyDiagnostics(unitarity_deviation=next(deviations))
    row = rows_of(check_health(trainer, 3))["unitarity_deviation"]
    assert (row.worst, row.step, row.last, row.passed) == (0.5, 2, 1e-6, False)


def test_what_nobody_measured_fails(tmp_path):
    trainer = toy_trainer(tmp_path)
    trainer.diagnostics = lambda: ToyDiagnostics()
    figures = {name: value for name, value in HEALTHY.items() if name != "cg_true_residual"}
    trainer.diagnostics = lambda: type("Partial", (), {"summary": lambda self: dict(figures)})()
    assert failed(check_health(trainer, 2)) == {"cg_true_residual"}


def test_a_diverging_run_is_judged(tmp_path):
    result = toy_check(tmp_path, steps=10, fail_from=5)  # two micro-batches per step
    assert failed(result) == NOT_FINITE
    assert rows_of(result)["skipped_steps"].worst == len(result.steps) - 2
    assert "in a row failed" in result.diverged


def test_the_clock_has_no_part_in_a_check(tmp_path):
    trainer = check_trainer(small_config("training.max_minutes=1e-6"), synthetic=True)
    assert len(check_health(trainer, 3).steps) == 3


def test_loss_is_judged_on_enough_held_out_text():
    trainer = check_trainer(small_config("model.max_seq_length=256", "training.micro_batch_size=4"), synthetic=True)
    batches = list(trainer.validation_loader)
    targets = itertools.accumulate(int((batch["targets"] >= 0).sum()) for batch in batches)
    needed = 1 + [total >= HELD_OUT_TARGETS for total in targets].index(True)
    assert len(batches) > needed
    expected = evaluate(trainer.model, trainer.objective, batches[:needed])["loss"]
    assert rows_of(check_health(trainer, 1))["val_loss"].first == expected


def test_progress_counts_the_steps_of_the_check(tmp_path, capsys):
    trainer = toy_trainer(tmp_path, "training.max_steps=1000")
    check_health(trainer, 50, display=CheckDisplay(50))
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("step ")]
    assert lines[0].startswith("step 1 (2 %) | tokens/s ")
    assert lines[-1].startswith("step 48 (96 %)") and "left 0:00:00" in lines[-1]
    assert len(lines) == 17


def test_check_leaves_the_configured_schedule_alone(tmp_path):
    result = toy_check(tmp_path)
    peak, warmup = toy_config(tmp_path).training.learning_rate, 2
    assert [step["learning_rate"] for step in result.steps] == [peak / warmup, peak, peak]
