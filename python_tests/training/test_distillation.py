"""Runs that learn from a teacher: what they learn, what they tell, and that they go on exactly."""

import shutil

import pytest
import torch
from saved_run import saved_run
from small_model import SMALL_MODEL
from taught_runs import config_of, learning_from, same_bits, trained
from toy import toy_corpus

from sem.cli import main
from sem.training import checkpoint
from sem.training.evaluation import evaluate
from sem.training.language import LanguageModelObjective
from sem.training.lightning.engine import SEMLightningTrainer
from sem.training.run_folder import open_checkpoint
from sem.training.trained_model import open_trained_model
from sem.training.trainer import SEMTrainer


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
    """The folder of a run whose model is sure of what no text says."""
    folder = saved_run(tmp_path_factory.mktemp("teacher"), seed=7)
    path, content = open_checkpoint(folder)
    content["model"]["sampler.weight"] *= 8
    checkpoint.write_atomically(path, content)
    return folder


def test_a_model_becomes_its_teachers_likeness(teacher, tmp_path):
    steps = ("training.max_steps=30", "training.final_eval_batches=1")
    found = {}
    for weight in (0.0, 1.0):
        _, figures = trained(tmp_path / str(weight), *steps, *learning_from(teacher, weight, 1.0))
        found[weight] = figures
    assert found[1.0]["soft_loss"] < 0.6 * found[0.0]["soft_loss"]
    assert found[1.0]["val_nll"] > found[0.0]["val_nll"] + 0.3  # of the text, which this teacher does not know
    for weight, figures in found.items():
        expected = (1 - weight) * figures["nll"] + weight * figures["soft_loss"]
        assert figures["loss"] == pytest.approx(expected + 0.01 * figures["unitary_divergence"], rel=1e-4)


def test_held_out_text_is_scored_without_the_teacher(teacher, tmp_path):
    trainer = SEMTrainer(config_of(tmp_path, *learning_from(teacher, 1.0)), corpus=toy_corpus())
    found = trainer.validate(final=True)
    expected = evaluate(trainer.model, LanguageModelObjective(), trainer.validation_loader)
    assert found == {f"val_{name}": value for name, value in expected.items()}
    trainer.train_loader.close()


@pytest.fixture(scope="module")
def straight(teacher, tmp_path_factory):
    """A run without a stop: its folder, and the parameters it came to."""
    folder = tmp_path_factory.mktemp("straight")
    return folder, trained(folder, *learning_from(teacher))[0]


@pytest.mark.parametrize(
    ("first", "second"),
    [(SEMTrainer, SEMTrainer), (SEMLightningTrainer, SEMLightningTrainer), (SEMTrainer, SEMLightningTrainer)],
)
def test_a_run_goes_on_exactly_in_either_engine(first, second, teacher, straight, tmp_path):
    trained(tmp_path, "training.max_steps=3", *learning_from(teacher), kind=first)
    parameters, _ = trained(tmp_path, *learning_from(teacher), kind=second, resume=tmp_path)
    assert same_bits(parameters, straight[1])


def test_the_teacher_has_a_part_in_every_bit_and_the_seed_is_the_students_own(teacher, straight, tmp_path):
    parameters, _ = trained(tmp_path / "alone")
    assert not same_bits(parameters, straight[1])
    config = config_of(tmp_path)
    alone = SEMTrainer(config, corpus=toy_corpus())
    draws = [torch.rand(3)]
    taught = SEMTrainer(config_of(tmp_path, *learning_from(teacher)), corpus=toy_corpus())
    draws.append(torch.rand(3))
    assert same_bits(alone.model.state_dict(), taught.model.state_dict()) and draws[0].equal(draws[1])
    assert not any(parameter.requires_grad for parameter in taught.objective.teacher.model.parameters())


def test_a_teacher_that_was_trained_on_meanwhile_is_refused(teacher, straight, tmp_path):
    own, folder = tmp_path / "teacher", tmp_path / "run"
    shutil.copytree(teacher, own)
    early = trained(folder, "training.max_steps=3", *learning_from(own))[0]
    path, content = open_checkpoint(own)
    content["model"]["sampler.bias"][0] += 1e-6
    checkpoint.write_atomically(path.with_name("step_00000009.pt"), content)
    with pytest.raises(ValueError, match="expected the parameters that the run began with.*name its checkpoint"):
        trained(folder, *learning_from(own), resume=folder)
    assert same_bits(open_checkpoint(folder)[1]["model"], early)
    parameters, _ = trained(folder, *learning_from(path), resume=folder)  # the checkpoint of then
    assert same_bits(parameters, straight[1])


def test_what_cannot_teach_is_one_sentence(teacher, tmp_path, capsys):
    larger = saved_run(tmp_path / "larger", "model.vocab_size=300")

    def told(*options):
        arguments = [f"--{option}" for option in (*SMALL_MODEL, f"training.output_dir={tmp_path / 'run'}")]
        status = main(["train", *arguments, *options])
        (line,) = capsys.readouterr().err.splitlines()
        return status, line

    status, line = told(f"--distillation.teacher={larger}")
    assert status == 2 and "distillation.teacher = " in line and "model.vocab_size = 260, got" in line and "300" in line
    for name in ("no/such/run", "gpt2"):
        status, line = told(f"--distillation.teacher={name}")
        assert status == 1 and line.startswith(f"sem: distillation.teacher = '{name}': there is no such checkpoint or")
        assert line.endswith("no name of the form owner/name, as a repository on the hub has")
    status, line = told(f"--distillation.teacher={teacher}", "--distillation.weight=1.5")
    assert status == 2 and "distillation.weight = 1.5: expected a number >= 0 and <= 1" in line


def test_opening_a_model_draws_nothing(teacher):
    torch.manual_seed(0)
    expected = torch.rand(2)
    torch.manual_seed(0)
    open_trained_model(teacher)
    assert torch.rand(2).equal(expected)
