"""What transformers draws from an exported folder is what this package draws."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from small_model import SMALL_MODEL
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    TextIteratorStreamer,
    pipeline,
)

from sem.cli import main
from sem.config import SEMConfig
from sem.config_sections import GenerationConfig
from sem.data import ByteTokenizer
from sem.data.file_tokenizer import train_tokenizer
from sem.generation import filter_log_probabilities, generate_text, generate_tokens
from sem.hub.pretrained import PretrainedSEMModel
from sem.hub.transformers import SEMForCausalLM, SEMTransformersConfig, StateCache
from sem.training.checkpoint import CheckpointStore

PROMPTS = ["import ", "def f(x):", "né"]


def decided(*overrides, tokenizer=None):
    """A model whose predictions are far from uniform, so that no two ways to round decide otherwise."""
    torch.manual_seed(2)
    model = PretrainedSEMModel(SEMConfig().with_overrides(*SMALL_MODEL, *overrides), tokenizer)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.3)
    return model


@pytest.fixture(scope="module", params=["coherent", "transport"])
def folder(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("exported") / request.param
    kinds = {"coherent": ("model.num_layers=2",), "transport": ("encoder.kind=transport", "propagator.echo=true")}
    decided(*kinds[request.param], "generation.temperature=0", "generation.max_new_tokens=12").save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def own(folder):
    return PretrainedSEMModel.from_pretrained(folder)


@pytest.fixture(scope="module")
def model(folder):
    return AutoModelForCausalLM.from_pretrained(folder)


@pytest.fixture(scope="module")
def tokenizer(folder):
    return AutoTokenizer.from_pretrained(folder)


def greedy(own, prompt, count):
    ids = [own.tokenizer.eos, *own.tokenizer.encode(prompt)]
    settings = GenerationConfig(temperature=0, max_new_tokens=count)
    return list(generate_tokens(own, ids, settings, stop_token=own.tokenizer.eos))


def continued(model, tokenizer, prompt, **options):
    """What ``generate`` puts behind the prompt, up to the end of the document."""
    given = tokenizer(prompt, return_tensors="pt")
    ids = model.generate(**given, **options)[0, given.input_ids.shape[1] :].tolist()
    return ids[: ids.index(tokenizer.eos_token_id)] if tokenizer.eos_token_id in ids else ids


def test_the_folder_is_recognised(folder, own):
    config = AutoConfig.from_pretrained(folder)
    assert isinstance(config, SEMTransformersConfig) and config.sections == own.config
    assert (config.vocab_size, config.hidden_size) == (260, 16)
    assert SEMTransformersConfig.from_dict(config.to_dict()).sections == own.config


@torch.no_grad()
def test_logits_and_loss_are_the_models_own(own, model):
    tokens = torch.randint(256, (2, 9), generator=torch.Generator().manual_seed(0))
    output = model(tokens, labels=tokens)
    assert output.logits.equal(own(tokens)) and output.cache is None
    loss = own.loss(tokens[:, :-1], tokens[:, 1:])["nll_sum"] / tokens[:, 1:].numel()
    torch.testing.assert_close(output.loss, loss)
    assert model(tokens, logits_to_keep=3).logits.equal(own(tokens)[:, -3:])
    assert isinstance(model(tokens, return_dict=False), tuple)


@pytest.mark.parametrize("prompt", PROMPTS)
def test_greedy_tokens_are_those_of_sem_generate(own, model, tokenizer, prompt):
    assert continued(model, tokenizer, prompt, do_sample=False, max_new_tokens=40) == greedy(own, prompt, 40)


@torch.no_grad()
def test_a_text_is_never_empty_though_its_end_is_likeliest(tmp_path):
    own = decided()
    own.sampler.bias[own.tokenizer.eos] = 60.0
    own.save_pretrained(tmp_path)
    model, tokenizer = AutoModelForCausalLM.from_pretrained(tmp_path), AutoTokenizer.from_pretrained(tmp_path)
    found = continued(model, tokenizer, "import ", do_sample=False, max_new_tokens=9)
    assert found == greedy(own.eval(), "import ", 9) and len(found) == 1


def test_the_command_line_and_the_pipeline_say_the_same(folder, own, tmp_path, capsys):
    content = {"config": own.config.to_dict(), "model": own.state_dict()}
    checkpoint = CheckpointStore(tmp_path).save(0, content)
    assert main(["generate", str(checkpoint), "--prompt=import ", "--device=cpu"]) == 0
    said = capsys.readouterr().out.removesuffix("\n")
    speak = pipeline("text-generation", str(folder), device="cpu")
    assert speak("import ")[0]["generated_text"] == said and len(said) > len("import ")


def test_prompts_of_different_lengths_are_continued_as_alone(own, model, tokenizer):
    given = tokenizer(PROMPTS, padding=True, return_tensors="pt")
    assert not given.attention_mask.all()
    found = model.generate(**given, do_sample=False, max_new_tokens=15)[:, given.input_ids.shape[1] :].tolist()
    eos, pad = tokenizer.eos_token_id, tokenizer.pad_token_id
    for prompt, ids in zip(PROMPTS, found, strict=True):
        end = ids.index(eos) if eos in ids else len(ids)
        assert ids[:end] == greedy(own, prompt, 15)
        assert all(token == pad for token in ids[end + 1 :])


@torch.no_grad()
def test_logits_of_padded_rows_are_those_of_the_rows_alone(model, tokenizer):
    for side in ("left", "right"):
        given = tokenizer(PROMPTS, padding=True, padding_side=side, return_tensors="pt")
        together = model(**given).logits
        for row, real, prompt in zip(together, given.attention_mask.bool(), PROMPTS, strict=True):
            alone = model(**tokenizer(prompt, return_tensors="pt")).logits[0]
            torch.testing.assert_close(row[real], alone, rtol=1e-5, atol=1e-5)


def test_samples_are_those_of_the_same_seed(own, model, tokenizer):
    torch.manual_seed(5)
    found = continued(model, tokenizer, "import ", do_sample=True, temperature=0.7, max_new_tokens=25)
    ids = [own.tokenizer.eos, *own.tokenizer.encode("import ")]
    settings = GenerationConfig(temperature=0.7, seed=5, max_new_tokens=25)
    assert found == list(generate_tokens(own, ids, settings, stop_token=own.tokenizer.eos))


def test_filters_leave_the_same_distribution(own, model, tokenizer):
    filters = {"temperature": 0.8, "top_k": 20, "top_p": 0.9}
    given = tokenizer("import ", return_tensors="pt")
    options = {"max_new_tokens": 1, "min_new_tokens": 0, "return_dict_in_generate": True, "output_scores": True}
    scores = model.generate(**given, do_sample=True, **filters, **options).scores[0]
    expected = filter_log_probabilities(own.prefill(given.input_ids)[0], **filters)
    torch.testing.assert_close(scores.softmax(-1), expected, rtol=1e-4, atol=1e-6)


def test_the_exported_defaults_are_the_runs(tmp_path):
    drawn = ("temperature=0.7", "top_k=5", "top_p=0.9", "min_p=0.01", "typical_p=0.95", "repetition_penalty=1.2")
    decided(*(f"generation.{setting}" for setting in drawn)).save_pretrained(tmp_path)
    found = AutoModelForCausalLM.from_pretrained(tmp_path).generation_config
    assert found.do_sample and found.max_new_tokens == 256
    for setting in drawn:
        name, _, value = setting.partition("=")
        assert getattr(found, name) == float(value)
    decided().save_pretrained(tmp_path)
    assert AutoModelForCausalLM.from_pretrained(tmp_path).generation_config.top_k == 0  # and not the library's 50


@pytest.mark.parametrize("beams", [2, 4])
def test_beams_are_reordered_with_their_states(model, tokenizer, beams):
    given = tokenizer(["import ", "def"], padding=True, return_tensors="pt")
    options = {"num_beams": beams, "do_sample": False, "max_new_tokens": 10, "num_return_sequences": 2}
    with_states = model.generate(**given, **options)
    assert with_states.tolist() == model.generate(**given, **options, use_cache=False).tolist()


def test_one_step_per_token_and_a_state_that_does_not_grow(model, tokenizer, monkeypatch):
    seen = []
    prefill = model.model.prefill

    def counted(tokens, state=None):
        predicted, after = prefill(tokens, state)
        tensors = [*after.encoder, *(tensor for layer in after.spinor for tensor in layer)]
        seen.append((tokens.shape[1], sum(tensor.numel() for tensor in tensors)))
        return predicted, after

    monkeypatch.setattr(model.model, "prefill", counted)
    given = tokenizer("import ", return_tensors="pt")
    model.generate(**given, do_sample=False, min_new_tokens=6, max_new_tokens=6)
    assert [length for length, _ in seen] == [8, 1, 1, 1, 1, 1]
    assert len({size for _, size in seen}) == 1


def test_a_text_is_continued_from_its_cache(own, model, tokenizer):
    given = tokenizer("import ", return_tensors="pt")
    first = model.generate(**given, do_sample=False, min_new_tokens=5, max_new_tokens=5, return_dict_in_generate=True)
    assert isinstance(first.cache, StateCache)
    options = {"do_sample": False, "min_new_tokens": 5, "max_new_tokens": 5}
    mask = torch.ones_like(first.sequences)
    second = model.generate(first.sequences, attention_mask=mask, cache=first.cache, **options)
    assert second.tolist() == model.generate(first.sequences, attention_mask=mask, **options).tolist()


def test_a_streamer_gets_the_text_as_it_is_drawn(own, model, tokenizer):
    streamer = TextIteratorStreamer(tokenizer, skip_prompt=True, skip_special_tokens=True)
    model.generate(**tokenizer("import ", return_tensors="pt"), streamer=streamer, do_sample=False, max_new_tokens=30)
    settings = GenerationConfig(prompt="import ", temperature=0, max_new_tokens=30)
    assert "".join(streamer) == "".join(generate_text(own, own.tokenizer, settings))


@pytest.mark.parametrize(("mask", "use_cache"), [([1, 1, 0], True), ([1, 0, 1], False), ([0, 0, 0], False)])
def test_padding_where_it_cannot_be_is_refused(model, mask, use_cache):
    with pytest.raises(ValueError, match="attention_mask: expected padding"):
        model(torch.tensor([[1, 2, 3]]), attention_mask=torch.tensor([mask]), use_cache=use_cache)
    with pytest.raises(ValueError, match=r"expected the shape of input_ids \[1, 3\], got \[1, 2\]"):
        model(torch.tensor([[1, 2, 3]]), attention_mask=torch.tensor([[1, 1]]))


@torch.no_grad()
def test_a_cache_behind_all_logits_goes_on_as_the_whole_text(model):
    tokens = torch.randint(256, (2, 9), generator=torch.Generator().manual_seed(1))
    whole = model(tokens).logits
    first = model(tokens[:, :8], use_cache=True)
    torch.testing.assert_close(first.logits, whole[:, :8], rtol=1e-5, atol=1e-5)
    second = model(tokens[:, 8:], cache=first.cache)
    torch.testing.assert_close(second.logits, whole[:, 8:], rtol=1e-4, atol=1e-4)
    assert (first.cache.positions, second.cache.positions) == (8, 9)
    with pytest.raises(ValueError, match="cache: expected none where labels"):
        model(tokens[:, 8:], cache=first.cache, labels=tokens[:, 8:])


def test_the_wrappers_own_folder_and_a_training_step_go_back_and_forth(model, own, tmp_path):
    model.save_pretrained(tmp_path)
    again = PretrainedSEMModel.from_pretrained(tmp_path)
    assert all(tensor.equal(again.state_dict()[name]) for name, tensor in own.state_dict().items())
    tokens = torch.tensor([[257, 105, 109, 112]])
    copy = AutoModelForCausalLM.from_pretrained(tmp_path).train()
    copy(tokens, labels=tokens).loss.backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in copy.model.sampler.parameters())


def test_parameters_stay_float32_whatever_is_asked_for(folder, own):
    asked = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16)
    assert all(tensor.equal(asked.model.state_dict()[name]) for name, tensor in own.state_dict().items())


@pytest.mark.parametrize(("take", "sentence"), [(True, "missing: model.sampler.bias"), (False, "unexpected: ")])
def test_missing_and_foreign_parameters_are_refused(folder, tmp_path, take, sentence):
    copy = shutil.copytree(folder, tmp_path / "copy")
    tensors = load_file(copy / "model.safetensors")
    if take:
        del tensors["sampler.bias"]
    else:
        tensors["foreign"] = torch.ones(2)
    save_file(tensors, copy / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match=sentence):
        AutoModelForCausalLM.from_pretrained(copy)


TEXTS = ["", "plain", "naïve — 漢字 🙂\r\n\t x", "  spaces  ", "<|endoftext|><|pad|>", "\x00\x7f"]


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("kind", ["bytes", "file"])
def test_both_tokenizers_read_and_write_as_ours(kind, text, tmp_path):
    ours = ByteTokenizer() if kind == "bytes" else train_tokenizer(["to be or not to be, naïve — 漢字"] * 3, 300)
    name = "bytes" if kind == "bytes" else "gone.json"
    decided("model.vocab_size=300", f"data.tokenizer={name}", tokenizer=ours).save_pretrained(tmp_path)
    theirs = AutoTokenizer.from_pretrained(tmp_path)
    ids = theirs(text).input_ids
    assert ids == [ours.eos, *ours.encode(text)]
    assert theirs.decode(ids, skip_special_tokens=True) == text
    assert (theirs.eos_token_id, theirs.pad_token_id) == (ours.eos, ours.pad)
    entries = json.loads((tmp_path / "generation_config.json").read_text())
    assert (entries["eos_token_id"], entries["pad_token_id"]) == (ours.eos, ours.pad)


def test_bytes_that_are_no_text_are_written_alike(tokenizer):
    ids = [110, 195, 32, 169, 255, 97]
    assert tokenizer.decode(ids) == ByteTokenizer().decode(ids)


def test_a_new_model_is_initialised_as_the_package_does(own):
    sections = own.config.to_dict()
    torch.manual_seed(7)
    ours = PretrainedSEMModel(own.config)
    torch.manual_seed(7)
    theirs = AutoModelForCausalLM.from_config(AutoConfig.for_model("sem", sem=sections))
    assert isinstance(theirs, SEMForCausalLM)
    assert all(tensor.equal(theirs.model.state_dict()[name]) for name, tensor in ours.state_dict().items())
