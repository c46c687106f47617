"""Causal language models of transformers, tiny and random, in folders of their own."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM

from sem.data import ByteTokenizer
from sem.hub.tokenizer_files import tokenizer_json

CONTEXT = 32
"""Tokens of the longest row of each model."""
_SIZES: dict[str, Any] = {
    "vocab_size": ByteTokenizer.vocab_size,
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 24,
    "max_position_embeddings": CONTEXT,
    "initializer_range": 0.5,  # sure of what it says
    "bos_token_id": ByteTokenizer.eos,
    "eos_token_id": ByteTokenizer.eos,
    "pad_token_id": 1,
}
_GROUPED = {"num_key_value_heads": 1, "head_dim": 8}
KINDS: dict[str, dict[str, Any]] = {
    "GPT2": {"vocab_size": 320},  # padded, and the head is the embedding
    "Llama": {"num_key_value_heads": 1},
    "Phi": {},  # a head with a bias
    "Gemma2": {**_GROUPED, "final_logit_softcapping": 3.0},
    "Roberta": {},  # sees what follows
}


def saved_model(folder: str | Path, kind: str = "GPT2", **settings: Any) -> Path:
    """The folder of a model of ``kind`` with the byte tokenizer's ids; each call with the same arguments gives the same
    model."""
    module = importlib.import_module(f"transformers.models.{kind.lower()}")
    config = getattr(module, f"{kind}Config")(**{**_SIZES, **KINDS[kind], **settings})
    with torch.random.fork_rng():
        torch.manual_seed(3)
        model = AutoModelForCausalLM.from_config(config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("bias"):  # they begin as zeros
                parameter.copy_(torch.linspace(-0.5, 0.5, parameter.numel()))
    model.save_pretrained(folder)
    Path(folder, "tokenizer.json").write_text(json.dumps(tokenizer_json(ByteTokenizer())))
    return Path(folder)
