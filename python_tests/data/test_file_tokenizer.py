"""Tokenizer files: trained here, made elsewhere, and packed."""

from __future__ import annotations

import json
import pickle
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from sem.config import SEMConfig
from sem.data import Corpus, Documents, build_loaders, keep_tokenizer, load_tokenizer, tokenizer_of
from sem.data.file_tokenizer import EOS_TOKEN, FileTokenizer, train_tokenizer
from sem.data.loader import EvalLoader, TrainLoader
from sem.data.packing import PackedRows

TEXTS = ["the wave returns, the wave turns. " * 4, "naïve café 漢字 🙂 " * 3, "def f(x):\n    return x\n" * 5]
TRAINED = train_tokenizer(TEXTS, 330)
all_text = st.text(st.characters(exclude_categories=["Cs"]))


def other_tokenizer(special, *, normalizer=None, prefix=False, byte_level=True) -> str:
    tokenizer = Tokenizer(models.BPE())
    if byte_level:
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=prefix)
        tokenizer.decoder = decoders.ByteLevel()
    if normalizer is not None:
        tokenizer.normalizer = normalizer
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet()) if byte_level else ["漢"]
    tokenizer.train_from_iterator(TEXTS, trainers.BpeTrainer(special_tokens=special, initial_alphabet=alphabet))
    return tokenizer.to_str()


@given(all_text)
def test_text_survives_and_its_bytes_are_counted(text):
    ids = TRAINED.encode(text)
    assert TRAINED.decode(ids) == text
    assert b"".join(TRAINED.decode_bytes([token]) for token in ids) == text.encode()
    assert TRAINED.token_bytes[ids].sum() == len(text.encode())
    assert TRAINED.encode(text.encode()) == ids


def test_marks_are_no_text_and_text_is_no_mark():
    assert (TRAINED.eos, TRAINED.pad) == (0, 1)
    assert TRAINED.token_bytes[[0, 1]].tolist() == [0, 0]
    assert TRAINED.decode([0, *TRAINED.encode("a"), 1]) == "a"
    quoted = TRAINED.encode(f"ends with {EOS_TOKEN} quoted")
    assert TRAINED.eos not in quoted
    assert TRAINED.decode(quoted) == f"ends with {EOS_TOKEN} quoted"
    assert TRAINED.decode_bytes([10**6]) == b""


def test_training_is_repeatable_and_compresses():
    again = train_tokenizer(iter(TEXTS), 330)
    assert again.content == TRAINED.content
    assert again.identity == TRAINED.identity
    assert train_tokenizer(TEXTS[:2], 330).identity != TRAINED.identity
    assert len(TRAINED.encode(TEXTS[0])) < len(TEXTS[0]) / 3
    assert TRAINED.vocab_size <= 330
    with pytest.raises(ValueError, match="vocab_size = 257: expected at least 258"):
        train_tokenizer(TEXTS, 257)


def test_file_and_pickle_are_the_same_tokenizer(tmp_path):
    path = tmp_path / "deep" / "tokenizer.json"
    TRAINED.save(path)
    assert path.read_text() == TRAINED.content
    assert [file.name for file in path.parent.iterdir()] == ["tokenizer.json"]
    for copy in (load_tokenizer(path), pickle.loads(pickle.dumps(TRAINED))):
        assert copy.identity == TRAINED.identity
        assert copy.encode(TEXTS[0]) == TRAINED.encode(TEXTS[0])


def test_files_made_elsewhere():
    gpt_like = FileTokenizer(other_tokenizer(["<|endoftext|>"]))
    assert gpt_like.pad == gpt_like.eos == 0
    llama_like = FileTokenizer(other_tokenizer(["<s>", "</s>", "<pad>"]))
    assert (llama_like.eos, llama_like.pad) == (1, 2)
    assert llama_like.decode(llama_like.encode(TEXTS[1])) == TEXTS[1]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (other_tokenizer(["<s>", "[MASK]"]), r"one of <\|endoftext\|>, .*; it has <s>, \[MASK\]"),
        (other_tokenizer([]), "it has none"),
        (other_tokenizer(["</s>"], normalizer=normalizers.Lowercase()), "gives text back unchanged"),
        (other_tokenizer(["</s>"], prefix=True), "gives text back unchanged"),
        (other_tokenizer(["</s>"], byte_level=False), "expected a byte-level vocabulary, it has the token"),
        ("no json", "expected a tokenizer file"),
        (json.dumps({"model": 1}), "expected a tokenizer file"),
    ],
)
def test_files_that_cannot_be_used(content, message):
    with pytest.raises(ValueError, match=f"data.tokenizer = 'mine.json': .*{message}"):
        FileTokenizer(content, "mine.json")


def test_a_missing_file_and_a_missing_library(tmp_path, monkeypatch):
    with pytest.raises(ValueError, match="expected 'bytes' or a tokenizer file, cannot read it"):
        load_tokenizer(tmp_path / "none.json")
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    message = r"a tokenizer file needs the tokenizers library: pip install 'sem-torch\[hub\]'"
    with pytest.raises(ImportError, match=message):
        FileTokenizer(TRAINED.content)


def test_vocabulary_and_model_are_compared(tmp_path):
    path = tmp_path / "mine.json"
    TRAINED.save(path)
    overrides = (f"data.tokenizer={path}", f"training.output_dir={tmp_path / 'run'}")
    config = SEMConfig().with_overrides(*overrides)
    message = rf"model.vocab_size = 260: expected at least {TRAINED.vocab_size}, the size of data.tokenizer = '.*mine"
    with pytest.raises(ValueError, match=message):
        tokenizer_of(config)
    assert tokenizer_of(config.with_overrides("model.vocab_size=400")).identity == TRAINED.identity


def test_a_run_keeps_its_tokenizer(tmp_path):
    path, run = tmp_path / "mine.json", tmp_path / "run"
    run.mkdir()
    TRAINED.save(path)
    config = SEMConfig().with_overrides(f"data.tokenizer={path}", f"training.output_dir={run}", "model.vocab_size=400")
    keep_tokenizer(tokenizer_of(config), run)
    other = train_tokenizer(TEXTS[:1], 300)
    other.save(path)
    assert tokenizer_of(config).identity == other.identity
    assert tokenizer_of(config, run).identity == TRAINED.identity
    path.unlink()
    assert tokenizer_of(config).identity == TRAINED.identity
    keep_tokenizer(load_tokenizer("bytes"), tmp_path)
    assert {entry.name for entry in tmp_path.iterdir()} == {"run"}


def test_documents_in_memory_as_tokens():
    documents = Documents.from_bytes([text.encode() for text in TEXTS] + [b""])
    tokens = documents.encoded(TRAINED)
    assert tokens.data.dtype == np.uint16
    assert [tokens[index].tolist() for index in range(len(tokens))] == [*map(TRAINED.encode, TEXTS), []]
    assert tokens.num_bytes == documents.num_bytes == len("".join(TEXTS).encode())
    assert tokens.encoded(TRAINED) is tokens
    assert tokens.fingerprint() != documents.fingerprint()
    stream = [token for text in TEXTS for token in [*TRAINED.encode(text), TRAINED.eos]] + [TRAINED.eos]
    rows = PackedRows(tokens, 8)
    inputs, targets = rows.batch(np.arange(len(rows)))
    padding = targets.size - len(stream)
    assert targets.ravel().tolist() == stream + [-100] * padding
    assert inputs.ravel().tolist() == ([TRAINED.eos, *stream] + [TRAINED.pad] * padding)[: inputs.size]


def test_padding_with_the_end_of_document_is_no_target():
    tokenizer = FileTokenizer(other_tokenizer(["</s>"]))
    rows = PackedRows(Documents.from_bytes([b"ab"]).encoded(tokenizer), 8)
    targets = rows.batch(np.arange(1))[1]
    assert (targets[0] == tokenizer.eos).sum() == 1
    assert (targets[0] >= 0).sum() == len(tokenizer.encode("ab")) + 1


def test_loaders_in_memory_count_the_text_and_know_their_tokenizer():
    documents = Documents.from_bytes([text.encode() for text in TEXTS])
    corpus = Corpus(documents, documents)
    config = SEMConfig().with_overrides("data.seq_length=8", "training.batch_size=2")
    as_bytes = build_loaders(config, corpus)[0]
    train, validation = build_loaders(config, corpus, tokenizer=TRAINED)
    assert isinstance(train, TrainLoader) and isinstance(validation, EvalLoader)
    assert sum(batch["bytes"] for batch in validation) == documents.num_bytes
    assert "tokenizer" not in as_bytes.state_dict()
    state = train.state_dict()
    assert state["tokenizer"] == TRAINED.identity
    with pytest.raises(ValueError, match="tokenizer: saved [0-9a-f]{32}, now None"):
        as_bytes.load_state_dict(state)
    next(train)
    train.load_state_dict(state)
    assert train.state_dict() == state
