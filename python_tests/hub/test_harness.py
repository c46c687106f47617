"""Scores of lm-evaluation-harness are the model's own likelihoods."""

import json

import pytest
import torch
from small_model import SMALL_MODEL

from sem.config import SEMConfig
from sem.config_sections import GenerationConfig
from sem.generation import generate_text
from sem.hub.pretrained import PretrainedSEMModel

lm_eval = pytest.importorskip("lm_eval", reason="needs pip install 'sem-torch[eval]'")
from lm_eval.api.instance import Instance  # noqa: E402
from lm_eval.tasks import TaskManager  # noqa: E402

from sem.hub.harness import SEMHarness  # noqa: E402


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(2)
    model = PretrainedSEMModel(SEMConfig().with_overrides(*SMALL_MODEL))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.3)
    return model.eval()


def requests(kind, *arguments):
    return [Instance(kind, {}, given, index) for index, given in enumerate(arguments)]


@torch.no_grad()
def likelihood(model, context, continuation):
    """Token by token, by the decoding state."""
    predicted, state = model.prefill(torch.tensor([context]))
    total, best = 0.0, True
    for token in continuation:
        total += float(predicted[0, token])
        best = best and int(predicted[0].argmax()) == token
        predicted, state = model.step(torch.tensor([token]), state)
    return total, best


@pytest.mark.parametrize("batch_size", [1, 3])
def test_likelihoods_are_those_of_decoding_step_by_step(model, batch_size):
    harness = SEMHarness(model, batch_size=batch_size, max_length=64)
    eos = model.tokenizer.eos
    predicted, state = model.prefill(torch.tensor([[eos, *b"def"]]))
    likeliest = chr(int(predicted[0, :128].argmax()))
    pairs = [("def", " f"), ("", "import"), ("a longer context", "x"), ("né", "é"), ("def", likeliest)]
    found = harness.loglikelihood(requests("loglikelihood", *pairs), disable_tqdm=True)
    for (context, continuation), (total, best) in zip(pairs, found, strict=True):
        expected = likelihood(model, [eos, *context.encode()], continuation.encode())
        assert total == pytest.approx(expected[0], rel=1e-4)
        assert best == expected[1]


def test_a_context_that_is_too_long_keeps_its_end(model):
    harness = SEMHarness(model)
    assert harness.max_length == 16
    ((total, _),) = harness.loglikelihood(requests("loglikelihood", ("x" * 50 + "def", " f")), disable_tqdm=True)
    expected, _ = likelihood(model, list(("x" * 12 + "def").encode()), b" f")
    assert total == pytest.approx(expected, rel=1e-4)


def test_a_long_text_is_scored_in_windows_each_token_once(model):
    text = "the wave returns to the shore and the shore to the wave"
    whole = SEMHarness(model, max_length=100).loglikelihood_rolling(requests("loglikelihood_rolling", (text,)))
    eos, ids = model.tokenizer.eos, list(text.encode())
    assert whole == [pytest.approx(likelihood(model, [eos], ids)[0], rel=1e-4)]
    windowed = SEMHarness(model).loglikelihood_rolling(requests("loglikelihood_rolling", (text,)))
    parts = likelihood(model, [eos], ids[:16])[0]
    for first in (16, 32):
        parts += likelihood(model, [ids[first - 1]], ids[first : first + 16])[0]
    parts += likelihood(model, ids[-17:48], ids[48:])[0]
    assert windowed == [pytest.approx(parts, rel=1e-4)]


def test_texts_end_where_the_harness_says(model):
    own = "".join(
        generate_text(model, model.tokenizer, GenerationConfig(prompt="def", temperature=0, max_new_tokens=20))
    )
    stop = own[5]
    options = {"until": [stop], "max_gen_toks": 20}
    found = SEMHarness(model).generate_until(
        requests("generate_until", ("def", options), ("def", {"max_gen_toks": 20}))
    )
    assert found == [own[: own.index(stop)], own]


def test_the_harness_evaluates_a_task(model, tmp_path):
    model.save_pretrained(tmp_path / "model")
    lines = [{"text": "def f", "choices": ["(x)", "???", "~~"], "answer": index % 3} for index in range(4)]
    (tmp_path / "task.json").write_text("\n".join(map(json.dumps, lines)))
    task = {
        "task": "three_ways",
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(tmp_path / "task.json")}},
        "test_split": "test",
        "output_type": "multiple_choice",
        "doc_to_text": "text",
        "doc_to_choice": "choices",
        "doc_to_target": "answer",
        "target_delimiter": "",
        "metric_list": [{"metric": "acc"}],
    }
    options = {"pretrained": str(tmp_path / "model")}
    how = {"batch_size": 2, "bootstrap_iters": 0, "task_manager": TaskManager(include_defaults=False)}
    found = lm_eval.simple_evaluate(model="sem", model_args=options, tasks=[task], **how)
    eos = model.tokenizer.eos
    scores = [likelihood(model, [eos, *b"def f"], choice.encode())[0] for choice in lines[0]["choices"]]
    best = max(range(3), key=scores.__getitem__)
    assert found["results"]["three_ways"]["acc,none"] == sum(line["answer"] == best for line in lines) / 4


def test_a_batch_size_that_is_no_number_is_named(model):
    with pytest.raises(ValueError, match="batch_size: expected an integer >= 1, got 'auto'"):
        SEMHarness(model, batch_size="auto")
