"""Shorter rows at first, or documents of some scores: which, for how long, and that a run goes on in the middle."""

import json

import pytest
import torch
from small_model import SMALL_MODEL
from toy import RecordingDisplay, toy_corpus

from sem.config import SEMConfig
from sem.data import EOS, build_loaders
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


def trained(folder, *overrides, corpus=None, kind=SEMTrainer, resume=None):
    """The tokens that the model was given, its parameters at the end, and the run's folder."""
    trainer = kind(config_of(folder, *overrides), corpus=corpus)
    seen = []

    def note(module, given):
        if module.training:
            seen.append(given[0].clone())

    trainer.model.register_forward_pre_hook(note)
    trainer.fit(resume=resume, display=RecordingDisplay())
    return seen, open_checkpoint(folder)[1]["model"], folder


def shapes_of(seen):
    return [tuple(tokens.shape) for tokens in seen]


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
    return trained(tmp_path_factory.mktemp("straight"), CURRICULUM, corpus=toy_corpus())


def test_the_model_gets_more_and_shorter_rows_first(straight, tmp_path):
    seen, parameters, _ = straight
    assert shapes_of(seen) == [(8, 4)] * 6 + [(4, 8)] * 4 + [(2, 16)] * 2
    without = trained(tmp_path, corpus=toy_corpus())[1]
    assert any(not torch.equal(value, without[name]) for name, value in parameters.items())


@pytest.mark.parametrize("kind", [SEMTrainer, SEMLightningTrainer])
@pytest.mark.parametrize("stop", [2, 4])
def test_a_run_goes_on_exactly_from_within_a_stage(kind, stop, straight, tmp_path):
    checkpoint = straight[2] / "checkpoints" / f"step_{stop:08d}.pt"
    seen, parameters, _ = trained(tmp_path, CURRICULUM, corpus=toy_corpus(), kind=kind, resume=checkpoint)
    assert shapes_of(seen) == shapes_of(straight[0][2 * stop :])
    assert all(torch.equal(value, straight[1][name]) for name, value in parameters.items())


@pytest.fixture(scope="module")
def scored(tmp_path_factory):
    """Overrides of a run on high scores, then on low ones in short rows, then on all, and that run. Documents of high
    scores are full of h, those of low ones of l, those without one of n."""
    folder = tmp_path_factory.mktemp("scored")
    with open(folder / "texts.jsonl", "w") as file:
        for number in range(300):
            letter, score = (("h", 4), ("l", 1), ("n", None))[number % 3]
            file.write(json.dumps({"text": letter * (5 + number % 11), "score": score}) + "\n")
    stages = "score >= 3 until 0.4, 4 and score <= 2 until 0.8"
    overrides = (f"data.dataset={folder}", "data.score_field=score", f"training.curriculum=[{stages}]")
    return overrides, trained(tmp_path_factory.mktemp("run"), *overrides)


def test_the_model_reads_what_the_stages_say(scored):
    seen = scored[1][0]
    assert shapes_of(seen) == [(2, 16)] * 6 + [(8, 4)] * 4 + [(2, 16)] * 2
    for first, last, letters in (0, 6, "h"), (6, 10, "l"), (10, 12, "hln"):
        tokens = torch.cat([tokens.flatten() for tokens in seen[first:last]]).tolist()
        begun = tokens[tokens.index(EOS) :]  # behind what is left of a document of the stage before
        assert {chr(token) for token in begun if token != EOS} == set(letters)


@pytest.mark.parametrize("kind", [SEMTrainer, SEMLightningTrainer])
@pytest.mark.parametrize("stop", [2, 3])
def test_a_run_goes_on_exactly_within_scores_and_where_they_change(kind, stop, scored, tmp_path):
    overrides, (seen, parameters, folder) = scored
    checkpoint = folder / "checkpoints" / f"step_{stop:08d}.pt"
    again, ours, _ = trained(tmp_path, *overrides, kind=kind, resume=checkpoint)
    assert all(a.equal(b) for a, b in zip(again, seen[2 * stop :], strict=True))
    assert all(torch.equal(value, parameters[name]) for name, value in ours.items())


def test_impossible_stages_are_one_sentence_and_a_run_without_has_none_to_go_on_with(tmp_path):
    def refused(*stages):
        with pytest.raises(ValueError, match="training.curriculum") as error:
            config_of(tmp_path, f"training.curriculum=[{', '.join(stages)}]")
        return str(error.value)

    for text in "8 up to 0.5", "8 and 4 until 0.5", "score > 3 until 0.5", "score >= x until 0.5", "until 0.5":
        assert "expected texts like '128 until 0.3', 'score >= 3 until 0.3'" in refused(text)
    assert "expected rising shares" in refused("4 until 0.5", "8 until 0.5")
    assert "expected rising shares" in refused("4 until 1.5")
    assert "expected lengths that divide a row's 16 tokens, got 5" in refused("5 until 0.5")
    assert "expected data.dataset to name a dataset with scores for 'score >= 3'" in refused("score >= 3 until 0.5")
    with pytest.raises(ValueError, match="training.curriculum: expected none"):
        loader_of(CURRICULUM).load_state_dict(loader_of().state_dict())


def test_a_stage_by_score_needs_a_field_and_text_with_scores():
    stage, dataset = "training.curriculum=[score <= 2.5 until 0.5]", "data.dataset=texts.jsonl"
    with pytest.raises(ValueError, match="expected data.score_field to name the field that 'score <= 2.5' judges"):
        config_of("unused", stage, dataset)
    with pytest.raises(ValueError, match="expected scores that can be, got 'score <= 2.5' with data.min_score = 3.0"):
        config_of("unused", stage, dataset, "data.score_field=score", "data.min_score=3")
    with pytest.raises(ValueError, match="expected stages without scores, text in memory has none"):
        loader_of(stage, dataset, "data.score_field=score")
