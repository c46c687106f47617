"""Models of transformers as teachers: what they teach is what they say, and what cannot teach is one sentence."""

import json
import shutil
import sys

import pytest
import torch
from safetensors.torch import load_file, save_file
from small_model import SMALL_MODEL
from taught_runs import config_of, learning_from, same_bits, trained
from torch.nn import functional
from transformers import AutoModelForCausalLM
from transformers_models import CONTEXT, saved_model

from sem.cli import main
from sem.config_sections import DistillationConfig
from sem.data import ByteTokenizer
from sem.data.file_tokenizer import train_tokenizer
from sem.model import SEMModel
from sem.precision import PrecisionPolicy
from sem.training.distillation import DistillationObjective
from sem.training.lightning.engine import SEMLightningTrainer
from sem.training.trainer import SEMTrainer
from sem.training.transformers_teacher import LinearReadOut, RowsReadOut, TransformersTeacher

VOCABULARY = ByteTokenizer.vocab_size
TOKENS = torch.randint(256, (3, 9), generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def gpt2(tmp_path_factory):
    return saved_model(tmp_path_factory.mktemp("models") / "gpt2")


@pytest.fixture
def folder(gpt2, tmp_path):
    """A copy of the folder, to be damaged."""
    return shutil.copytree(gpt2, tmp_path / "model")


def opened(folder, tokenizer=None, vocab_size=VOCABULARY, longest=16, mode="32-true"):
    policy = PrecisionPolicy(mode, "cpu")
    given = tokenizer or ByteTokenizer(), vocab_size, longest, policy, torch.device("cpu")
    return TransformersTeacher(str(folder), *given)


@torch.no_grad()
def said_by(teacher, tokens=TOKENS):
    states, head = teacher.read(tokens)
    return head.log_probabilities(states.flatten(0, -2)).log_softmax(-1)


@pytest.mark.parametrize(
    ("kind", "head"),
    [("GPT2", LinearReadOut), ("Llama", LinearReadOut), ("Phi", LinearReadOut), ("Gemma2", RowsReadOut)],
)
def test_the_loss_is_the_plain_formula(kind, head, tmp_path):
    teacher = opened(saved_model(tmp_path / kind, kind))
    assert isinstance(teacher.read(TOKENS)[1], head)
    settings = DistillationConfig(teacher=str(tmp_path / kind), temperature=1.7, weight=0.3)
    torch.manual_seed(0)
    student = SEMModel(config_of(tmp_path, "training.unitary_lambda=0"))
    student.sampler.chunk_tokens = 5  # chunks that end within a row, and one that spans two
    targets = TOKENS.roll(-1, 1)
    targets[:, -1] = -100
    batch = {"tokens": TOKENS, "targets": targets, "bytes": 1}
    found = DistillationObjective(teacher, settings)(student.train(), batch, None)

    with torch.no_grad():
        own = AutoModelForCausalLM.from_pretrained(tmp_path / kind, dtype=torch.float64)
        known = own(TOKENS).logits[..., :VOCABULARY].double() / settings.temperature
        learnt = student(TOKENS).double()
    counts = targets != -100
    taught, model = known.softmax(-1), (learnt / settings.temperature).log_softmax(-1)
    divergence = (taught * (known.log_softmax(-1) - model)).sum(-1)[counts].mean() * settings.temperature**2
    nll = functional.nll_loss(learnt[counts], targets[counts])
    assert divergence > 0.2  # there is something to learn
    expected = (1 - settings.weight) * nll + settings.weight * divergence
    torch.testing.assert_close(found["loss"].double(), expected, rtol=2e-6, atol=0)
    torch.testing.assert_close(found["soft_sum"].double() / counts.sum(), divergence, rtol=5e-6, atol=0)


def test_a_model_becomes_its_teachers_likeness(gpt2, tmp_path):
    steps = ("training.max_steps=30", "training.final_eval_batches=1")
    found = [trained(tmp_path / str(w), *steps, *learning_from(gpt2, w, 1.0))[1]["soft_loss"] for w in (0.0, 1.0)]
    assert found[1] < 0.6 * found[0]


@pytest.fixture(scope="module")
def straight(gpt2, tmp_path_factory):
    """The parameters that a run without a stop comes to."""
    return trained(tmp_path_factory.mktemp("straight"), *learning_from(gpt2))[0]


@pytest.mark.parametrize(("first", "second"), [(SEMTrainer, SEMLightningTrainer), (SEMLightningTrainer, SEMTrainer)])
def test_a_run_goes_on_exactly_in_either_engine(first, second, gpt2, straight, tmp_path):
    trained(tmp_path, "training.max_steps=3", *learning_from(gpt2), kind=first)
    parameters, _ = trained(tmp_path, *learning_from(gpt2), kind=second, resume=tmp_path)
    assert same_bits(parameters, straight)


def test_a_teacher_whose_weights_or_settings_are_others_now_is_refused(folder, straight, tmp_path):
    run, weights, settings = tmp_path / "run", folder / "model.safetensors", folder / "config.json"
    trained(run, "training.max_steps=3", *learning_from(folder))
    tensors, entries = load_file(weights), json.loads(settings.read_text())
    other = {**tensors, "transformer.ln_f.bias": tensors["transformer.ln_f.bias"] + 1e-6}
    save_file(other, weights, {"format": "pt"})
    with pytest.raises(ValueError, match="expected the parameters that the run began with.*folder or revision of then"):
        trained(run, *learning_from(folder), resume=run)
    save_file(tensors, weights, {"format": "pt"})
    settings.write_text(json.dumps({**entries, "layer_norm_epsilon": 1e-4}))
    with pytest.raises(ValueError, match="expected the parameters that the run began with"):
        trained(run, *learning_from(folder), resume=run)
    settings.write_text(json.dumps({**entries, "transformers_version": "6.1.0"}))  # computes the same
    assert same_bits(trained(run, *learning_from(folder), resume=run)[0], straight)


def test_a_teacher_is_what_its_files_said_when_it_was_opened_and_draws_nothing(folder):
    torch.manual_seed(0)
    drawn = torch.rand(2)
    torch.manual_seed(0)
    teacher = opened(folder)
    assert torch.rand(2).equal(drawn)
    before = said_by(teacher)
    content = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(content[:-4096] + bytes(4096))
    assert said_by(teacher).equal(before)
    assert not teacher.model.training and not any(p.requires_grad for p in teacher.model.parameters())


def test_weights_of_another_dtype_are_read_as_float32(folder):
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16)
    model.save_pretrained(folder)
    teacher = opened(folder)
    assert {p.dtype for p in teacher.model.parameters()} == {torch.float32}
    with torch.no_grad():
        expected = model.float().eval()(TOKENS).logits[..., :VOCABULARY].log_softmax(-1).flatten(0, 1)
    torch.testing.assert_close(said_by(teacher), expected)


@pytest.mark.parametrize("kind", ["GPT2", "Gemma2"])
def test_precision_is_the_policys_wherever_it_is_called_from(kind, tmp_path):
    folder = saved_model(tmp_path, kind)
    exact = said_by(opened(folder))
    with torch.autocast("cpu", torch.bfloat16):
        assert said_by(opened(folder)).equal(exact)
    for mode in ("bf16-mixed", "selective-bf16"):
        teacher = opened(folder, mode=mode)
        found = said_by(teacher)
        assert found.dtype == torch.float32 and not found.equal(exact)
        assert float((found - exact).exp().sub(1).abs().mean()) < 0.1
        with torch.autocast("cpu", torch.bfloat16):
            assert said_by(teacher).equal(found)


def test_a_head_that_bends_logits_computes_each_row_once(tmp_path):
    teacher = opened(saved_model(tmp_path, "Gemma2"))
    states, head = teacher.read(TOKENS)
    asked = []
    logits = head._logits
    head._logits = lambda tokens: asked.append(tokens.tolist()[0]) or logits(tokens)
    pieces = [head.log_probabilities(piece) for piece in states.flatten(0, -2).split(4)]
    assert [len(piece) for piece in pieces] == [4] * 6 + [3] and asked == TOKENS.tolist()
    whole = teacher._logits(TOKENS)[..., :VOCABULARY].flatten(0, 1)
    torch.testing.assert_close(torch.cat(pieces), whole)


def test_a_bound_that_small_logits_do_not_show_is_found(tmp_path):
    settings = {"initializer_range": 0.01, "final_logit_softcapping": 30.0}
    teacher = opened(saved_model(tmp_path, "Gemma2", **settings))
    with torch.no_grad():
        assert teacher.model(TOKENS).logits.abs().max() < 0.2
    assert isinstance(teacher.read(TOKENS)[1], RowsReadOut)


def test_what_decides_is_what_each_id_stands_for(folder, tmp_path):
    file = folder / "tokenizer.json"
    exact = said_by(opened(folder))
    content = json.loads(file.read_text())
    file.write_text(json.dumps({**content, "truncation": None, "added_tokens": content["added_tokens"][::-1]}))
    assert said_by(opened(folder)).equal(exact)
    own = train_tokenizer(["the wave returns to the shore"] * 4, 270)
    with pytest.raises(ValueError, match="own tokenizer, in which id 0 stands for b'', its own has b'.x00' there"):
        opened(folder, own)
    own.save(file)
    assert said_by(opened(folder, own)).equal(exact)
    with pytest.raises(ValueError, match="own tokenizer, in which id 0 stands for b'.x00', its own has b'' there"):
        opened(folder)
    vocabulary = content["model"]["vocab"] | {"<|endoftext|>": 258, "<|pad|>": 257}
    marks = [{**mark, "id": vocabulary[mark["content"]]} for mark in content["added_tokens"]]
    file.write_text(json.dumps({**content, "added_tokens": marks, "model": {**content["model"], "vocab": vocabulary}}))
    with pytest.raises(ValueError, match="in which id 257 ends a document, in its own 258 does"):
        opened(folder)


def test_logits_beyond_the_vocabulary_are_left_out_and_too_few_are_refused(gpt2):
    assert said_by(opened(gpt2)).shape == (TOKENS.numel(), VOCABULARY)
    assert said_by(opened(gpt2, vocab_size=320)).shape[-1] == 320
    with pytest.raises(ValueError, match="expected logits of model.vocab_size = 321 ids or more, got 320"):
        opened(gpt2, vocab_size=321)


def test_rows_that_are_too_long_for_the_model_are_refused(gpt2):
    teacher = opened(gpt2, longest=CONTEXT)
    sentence = "expected a model of rows of 33 tokens .data.seq_length., this one's max_position_embeddings is 32"
    with pytest.raises(ValueError, match=sentence):
        opened(gpt2, longest=CONTEXT + 1)
    with pytest.raises(ValueError, match=sentence):
        teacher.read(torch.zeros(1, CONTEXT + 1, dtype=torch.int64))


def without_final_norm(folder):
    tensors = load_file(folder / "model.safetensors")
    del tensors["transformer.ln_f.weight"]
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})


def not_a_number(folder):
    tensors = load_file(folder / "model.safetensors")
    tensors["transformer.ln_f.weight"][3] = torch.nan
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})


def shorter(folder):
    content = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(content[:-100])


def setting(**entries):
    def change(folder):
        path = folder / "config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | entries))

    return change


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (without_final_norm, "damaged, its weights lack transformer.ln_f.weight, 1 tensors in all"),
        (not_a_number, "damaged, transformer.ln_f.weight has entries that are not finite"),
        (shorter, "damaged or not to be loaded .Error while deserializing header"),
        (setting(n_embd=18), "damaged or not to be loaded "),
        (
            setting(model_type="strange", auto_map={"AutoConfig": "code.Strange"}),
            "'strange'; a model's own code is never",
        ),
        (setting(model_type="sem"), "expected a run or a model that transformers knows, got an export of a run"),
        (setting(model_type=["gpt2"]), "got the kind .'gpt2'.; a model's own code is never run"),
        (setting(model_type="vit"), "expected a causal language model, got the kind 'vit'"),
        (lambda folder: (folder / "config.json").write_text("{"), "config.json is damaged or cannot be read"),
        (lambda folder: (folder / "config.json").write_text("[1]"), "got the kind None"),
        (lambda folder: (folder / "tokenizer.json").unlink(), "as its tokenizer.json, which is not there"),
        (
            lambda folder: (folder / "tokenizer.json").write_text("{}"),
            "its tokenizer.json is none: expected a tokenizer",
        ),
        (
            lambda folder: (folder / "model.safetensors").rename(folder / "pytorch_model.bin"),
            "expected weights as safetensors, model.safetensors or model.safetensors.index.json, found none",
        ),
    ],
)
def test_a_damaged_folder_is_one_sentence(damage, sentence, folder):
    damage(folder)
    with pytest.raises(ValueError, match=sentence) as raised:
        opened(folder)
    told = str(raised.value)
    assert told.startswith(f"distillation.teacher = {str(folder)!r}: ") and "\n" not in told


def test_a_model_that_sees_what_it_is_to_predict_is_refused(tmp_path):
    with pytest.raises(ValueError, match="expected a causal model, this one's predictions depend on what follows"):
        opened(saved_model(tmp_path, "Roberta"))


def test_the_command_says_it_in_one_line(gpt2, folder, tmp_path, capsys, monkeypatch):
    def told(*options):
        arguments = [f"--{option}" for option in (*SMALL_MODEL, f"training.output_dir={tmp_path / 'run'}")]
        status = main(["train", *arguments, *options])
        (line,) = capsys.readouterr().err.splitlines()
        return status, line

    shorter(folder)
    status, line = told(f"--distillation.teacher={folder}")
    assert status == 2 and "damaged or not to be loaded" in line
    (tmp_path / "empty").mkdir()
    status, line = told(f"--distillation.teacher={tmp_path / 'empty'}")
    assert status == 2 and "of a run or of a model of transformers, it has neither checkpoints nor config.json" in line
    monkeypatch.setitem(sys.modules, "transformers", None)
    status, line = told(f"--distillation.teacher={gpt2}")
    assert status == 1 and "needs transformers" in line and line.endswith("pip install 'sem-torch[hub]'")
