"""Sampling text from a model, token by token.

Each new token comes from a full forward pass over the last ``max_seq_length`` tokens.
"""

from __future__ import annotations

import codecs
import math
from collections.abc import Iterator, Sequence
from typing import Protocol

import torch
from torch import Tensor, nn

from sem.config_sections import GenerationConfig


class Tokenizer(Protocol):
    """What generation needs of a tokenizer: bytes in and out, and a boundary between documents."""

    eos: int

    def encode(self, text: str) -> list[int]: ...

    def decode_bytes(self, ids: Sequence[int]) -> bytes: ...


def filter_log_probabilities(
    log_probabilities: Tensor, *, temperature: float = 1.0, top_k: int = 0, top_p: float = 1.0
) -> Tensor:
    """Probabilities to draw from, after temperature, then top-k, then top-p.

    The likeliest token always stays. Ties at the k-th place are resolved by the token id, so at most
    ``top_k`` tokens have a probability above 0.

    Args:
        log_probabilities: floating, of shape `[..., V]`.
        temperature: divides the log-probabilities; 0 leaves only the likeliest token.
        top_k: keep the k likeliest tokens; 0 keeps all.
        top_p: keep the smallest set of tokens whose probability reaches this; 1 keeps all.

    Returns:
        Probabilities of the same shape and dtype that sum to 1.

    Raises:
        ValueError: a setting is out of its range.

    Example:
        >>> filter_log_probabilities(torch.tensor([0.5, 0.3, 0.2]).log(), top_k=1).tolist()
        [1.0, 0.0, 0.0]
    """
    if temperature < 0:
        raise ValueError(f"temperature: expected a number >= 0, got {temperature}")
    if top_k < 0:
        raise ValueError(f"top_k: expected an integer >= 0, got {top_k}")
    if not 0 < top_p <= 1:
        raise ValueError(f"top_p: expected a number > 0 and <= 1, got {top_p}")
    ordered, order = log_probabilities.sort(dim=-1, descending=True, stable=True)
    if temperature == 0:
        top_k = 1
    else:
        smallest = torch.finfo(ordered.dtype).tiny
        ordered = (ordered - ordered[..., :1]) / max(temperature, smallest)
    probabilities = ordered.softmax(dim=-1)
    if top_k:
        probabilities[..., top_k:] = 0.0
        probabilities = probabilities / probabilities.sum(dim=-1, keepdim=True)
    if top_p < 1:
        reached_before = probabilities.cumsum(dim=-1) - probabilities
        probabilities = probabilities.masked_fill(reached_before >= top_p, 0.0)
        probabilities = probabilities / probabilities.sum(dim=-1, keepdim=True)
    return torch.zeros_like(probabilities).scatter(-1, order, probabilities)


@torch.no_grad()
def generate_tokens(
    model: nn.Module,
    prompt: Sequence[int],
    *,
    max_new_tokens: int,
    max_seq_length: int,
    temperature: float = 1.0,
    top_k: int = 0,
    top_p: float = 1.0,
    seed: int = 0,
    stop_token: int | None = None,
) -> Iterator[int]:
    """Draw tokens one after the other; the same seed draws the same tokens on the same machine.

    The draw uses a generator of its own on the CPU and leaves torch's global one alone. The model is in
    evaluation mode while tokens are drawn.

    Args:
        model: maps int64 tokens `[1, S]` to log-probabilities `[1, S, V]`.
        prompt: at least one token to continue.
        max_new_tokens: most tokens to draw.
        max_seq_length: longest context the model sees.
        stop_token: ends the text when it is drawn, and is not yielded; it is never the first token drawn.

    Raises:
        ValueError: the prompt is empty or a setting is out of its range.
        FloatingPointError: the model's probabilities are not finite.
    """
    if not prompt:
        raise ValueError("prompt: expected at least one token, got none")
    for name, value in (("max_new_tokens", max_new_tokens), ("max_seq_length", max_seq_length)):
        if value < 1:
            raise ValueError(f"{name}: expected an integer >= 1, got {value}")
    device = next(model.parameters()).device
    generator = torch.Generator().manual_seed(seed)
    context = torch.tensor([list(prompt)[-max_seq_length:]], dtype=torch.int64, device=device)
    was_training = model.training
    model.eval()
    try:
        for count in range(max_new_tokens):
            log_probabilities = model(context)[0, -1].float().cpu()
            if count == 0 and stop_token is not None:
                log_probabilities[stop_token] = -math.inf
            if log_probabilities.isnan().any():
                raise FloatingPointError("the model's probabilities are not finite; its parameters are damaged")
            probabilities = filter_log_probabilities(
                log_probabilities, temperature=temperature, top_k=top_k, top_p=top_p
            )
            token = int(torch.multinomial(probabilities, 1, generator=generator))
            if token == stop_token:
                return
            yield token
            drawn = torch.tensor([[token]], dtype=torch.int64, device=device)
            context = torch.cat([context, drawn], dim=1)[:, -max_seq_length:]
    finally:
        model.train(was_training)


def generate_text(
    model: nn.Module, tokenizer: Tokenizer, settings: GenerationConfig, *, max_seq_length: int
) -> Iterator[str]:
    """The continuation of ``settings.prompt`` in pieces as they become readable.

    The model sees a document's beginning before the prompt, and the text ends where it ends the document.
    Bytes that are no UTF-8 become U+FFFD; a character of several bytes comes in one piece.

    Raises:
        ValueError: a setting is out of its range.
    """
    decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
    tokens = generate_tokens(
        model,
        [tokenizer.eos, *tokenizer.encode(settings.prompt)],
        max_new_tokens=settings.max_new_tokens,
        max_seq_length=max_seq_length,
        temperature=settings.temperature,
        top_k=settings.top_k,
        top_p=settings.top_p,
        seed=settings.seed,
        stop_token=tokenizer.eos,
    )
    for token in tokens:
        if piece := decoder.decode(tokenizer.decode_bytes([token])):
            yield piece
    if piece := decoder.decode(b"", final=True):
        yield piece
