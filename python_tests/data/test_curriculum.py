"""Shorter rows at first: which, how many, for how long, and that a run goes on in the middle of it."""

import pytest
import torch
from small_model import SMALL_MODEL
from toy import RecordingDisplay, toy_corpus

from sem.config import SEMConfig
from sem.data import build_loaders
from sem.training.lightning.engine import SEMLightningTrainer
from sem.training.run_folder import open_checkpoint
from sem.training.trainer import SEMTrainer

RUN = (
    "training.batch_size=4",
    "training.micro_batch_size=2",
    "training.max_steps=6",
    "training.warmup_steps=0",
    "training.decay_steps=0",
    "training.learning_rate=0.02",
    "training.checkpoint_every=1",
    "training.keep_checkpoints=9",
    "training.eval_every=100",
    "training.eval_batches=1",
    "training.final_eval_batches=1",
    "training.num_threads=1",
    "training.loggers=[]",
    "generation.max_new_tokens=2",
)
CURRICULUM = "training.curriculum=[4 until 0.4, 8 until 0.8]"
"""Of 6 steps of rows of 16 tokens: steps 1 to 3 have 4, steps 4 and 5 have 8."""


def config_of(folder, *overrides):
    return SEMConfig().with_overrides(*SMALL_MODEL, *RUN, f"training.output_dir={folder}", *overrides)


def loader_of(*overrides, **place):
    return build_loaders(config_of("unused", *overrides), toy_corpus(), batch_size=2, **place)[0]


def test_a_stage_has_the_text_of_full_rows_in_pieces():
    cut, full = loader_of(CURRICULUM), loader_of()
    lengths = []
    for _ in range(12):  # two micro-batches a step
        ours, theirs = next(cut), next(full)
        lengths.append(ours["tokens"].shape[1])
        assert ours["bytes"] == theirs["bytes"]
        for name in ("tokens", "targets"):
            assert ours[name].numel() == 32
            assert ours[name].equal(torch.cat([row.view(-1, lengths[-1]) for row in theirs[name]]))
    assert lengths == [4] * 6 + [8] * 4 + [16] * 2


def test_two_ranks_are_at_the_same_stage_and_share_what_one_would_have():
    pair = [loader_of(CURRICULUM, rank=rank, world_size=2) for rank in range(2)]
    alone = build_loaders(config_of("unused", CURRICULUM), toy_corpus(), batch_size=4)[0]
    for _ in range(6):  # each a whole step
        joined = torch.cat([next(loader)["tokens"] for loader in pair])
        assert joined.equal(next(alone)["tokens"])


def trained(folder, *overrides, kind=SEMTrainer, resume=None):
    """The shapes that the model was given, its parameters at the end, and the run's folder."""
    trainer = kind(config_of(folder, *overrides), corpus=toy_corpus())
    shapes = []

    def note(module, given):
        if module.training:
            shapes.append(tuple(given[0].shape))

    trainer.model.register_forward_pre_hook(note)
    trainer.fit(resume=resume, display=RecordingDisplay())
    return shapes, open_checkpoint(folder)[1]["model"], folder


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
    return trained(tmp_path_factory.mktemp("straight"), CURRICULUM)


def test_the_model_gets_more_and_shorter_rows_first(straight, tmp_path):
    shapes, parameters, _ = straight
    assert shapes == [(8, 4)] * 6 + [(4, 8)] * 4 + [(2, 16)] * 2
    without = trained(tmp_path)[1]
    assert any(not torch.equal(value, without[name]) for name, value in parameters.items())


@pytest.mark.parametrize("kind", [SEMTrainer, SEMLightningTrainer])
@pytest.mark.parametrize("stop", [2, 4])
def test_a_run_goes_on_exactly_from_within_a_stage(kind, stop, straight, tmp_path):
    checkpoint = straight[2] / "checkpoints" / f"step_{stop:08d}.pt"
    shapes, parameters, _ = trained(tmp_path, CURRICULUM, kind=kind, resume=checkpoint)
    assert shapes == straight[0][2 * stop :]
    assert all(torch.equal(value, straight[1][name]) for name, value in parameters.items())


def test_impossible_stages_are_one_sentence_and_a_run_without_has_none_to_go_on_with(tmp_path):
    def refused(*stages):
        with pytest.raises(ValueError, match="training.curriculum") as error:
            config_of(tmp_path, f"training.curriculum=[{', '.join(stages)}]")
        return str(error.value)

    assert "expected texts like '128 until 0.3'" in refused("8 up to 0.5")
    assert "expected rising shares" in refused("4 until 0.5", "8 until 0.5")
    assert "expected rising shares" in refused("4 until 1.5")
    assert "expected lengths that divide a row's 16 tokens, got 5" in refused("5 until 0.5")
    with pytest.raises(ValueError, match="training.curriculum: expected none"):
        loader_of(CURRICULUM).load_state_dict(loader_of().state_dict())
