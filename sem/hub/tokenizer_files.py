"""A model's tokenizer as the files that transformers and the tokenizers library read.

``tokenizer.json`` holds the vocabulary, the byte tokenizer's too, and puts the end of a document in front of every
text, as :mod:`sem.generation` does: a text continues a document that has just begun. ``tokenizer_config.json`` names
the marks. No code of this package is needed to read either.
"""

from __future__ import annotations

import json
from typing import Any

from sem.data import Tokenizer
from sem.data.file_tokenizer import EOS_TOKEN, PAD_TOKEN, byte_letters
from sem.data.tokenizer import BOS, EOS, PAD

TOKENIZER_CONFIG = "tokenizer_config.json"
_BOS_TOKEN = "<|begin|>"


def tokenizer_json(tokenizer: Tokenizer) -> dict[str, Any]:
    """The content of ``tokenizer.json``: ids as ``tokenizer`` gives them, behind the end of a document.

    Example:
        >>> from sem.data import ByteTokenizer
        >>> content = tokenizer_json(ByteTokenizer())
        >>> content["model"]["vocab"]["a"], [mark["content"] for mark in content["added_tokens"]]
        (97, ['<|begin|>', '<|endoftext|>', '<|pad|>'])
    """
    content = _byte_level() if tokenizer.content is None else json.loads(tokenizer.content)
    eos = _names(content)[tokenizer.eos]

    def behind_eos(*sequences: str) -> list[dict[str, Any]]:
        pieces: list[dict[str, Any]] = []
        for type_id, name in enumerate(sequences):
            pieces.append({"SpecialToken": {"id": eos, "type_id": type_id}})
            pieces.append({"Sequence": {"id": name, "type_id": type_id}})
        return pieces

    return {
        **content,
        "truncation": None,
        "padding": None,
        "post_processor": {
            "type": "TemplateProcessing",
            "single": behind_eos("A"),
            "pair": behind_eos("A", "B"),
            "special_tokens": {eos: {"id": eos, "ids": [tokenizer.eos], "tokens": [eos]}},
        },
    }


def tokenizer_config(tokenizer: Tokenizer) -> dict[str, Any]:
    """The content of ``tokenizer_config.json``: a mark's name in a text is text, and no space is tidied away."""
    names = _names(tokenizer_json(tokenizer))
    eos = names[tokenizer.eos]
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": eos,
        "eos_token": eos,
        "pad_token": names[tokenizer.pad],
        "padding_side": "left",
        "split_special_tokens": True,
        "clean_up_tokenization_spaces": False,
        "model_input_names": ["input_ids", "attention_mask"],
    }


def _names(content: dict[str, Any]) -> dict[int, str]:
    return {token["id"]: token["content"] for token in content["added_tokens"]}


def _byte_level() -> dict[str, Any]:
    """The byte tokenizer as byte-pair encoding without merges."""
    marks = {_BOS_TOKEN: BOS, EOS_TOKEN: EOS, PAD_TOKEN: PAD}
    plain = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
    return {
        "version": "1.0",
        "added_tokens": [{"id": id, "content": name, **plain, "special": True} for name, id in marks.items()],
        "normalizer": None,
        "pre_tokenizer": byte_level,
        "decoder": byte_level,
        "model": {"type": "BPE", "vocab": {letter: byte for letter, byte in byte_letters()} | marks, "merges": []},
    }
