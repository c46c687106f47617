"""Sampling text from a model, token by token.

The prompt is read by one pass in chunks, each new token takes one :meth:`sem.model.SEMModel.step`: the time per token
and the memory do not depend on the length, and the text may outgrow ``model.max_seq_length``.
"""

from __future__ import annotations

import codecs
import math
from collections.abc import Callable, Iterable, Iterator, Sequence

import torch
from torch import Tensor

from sem.config_sections import GenerationConfig
from sem.data import Tokenizer
from sem.extras import how_to_install
from sem.model import DecodingState, SEMModel


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
    if not temperature >= 0:
        raise ValueError(f"temperature: expected a number >= 0, got {temperature}")
    if top_k < 0:
        raise ValueError(f"top_k: expected an integer >= 0, got {top_k}")
    if not 0 < top_p <= 1:
        raise ValueError(f"top_p: expected a number > 0 and <= 1, got {top_p}")
    ordered, order = log_probabilities.sort(dim=-1, descending=True, stable=True)
    if temperature == 0:
        top_k = 1
    else:
        range_of = torch.finfo(ordered.dtype)  # beyond which 0 / 0 and inf / inf are no numbers
        ordered = (ordered - ordered[..., :1]) / min(max(temperature, range_of.tiny), range_of.max)
    probabilities = ordered.softmax(dim=-1)
    if top_k:
        probabilities[..., top_k:] = 0.0
        probabilities = probabilities / probabilities.sum(dim=-1, keepdim=True)
    if top_p < 1:
        wide = probabilities if probabilities.dtype == torch.float64 else probabilities.float()
        reached_before = wide.cumsum(dim=-1).roll(1, dims=-1)
        reached_before[..., 0] = -1.0  # the likeliest stays, whatever is left of top_p in this dtype
        rounding = 8 * torch.finfo(wide.dtype).eps
        probabilities = probabilities.masked_fill(reached_before >= top_p * (1 - rounding), 0.0)
        probabilities = probabilities / probabilities.sum(dim=-1, keepdim=True)
    return torch.zeros_like(probabilities).scatter(-1, order, probabilities)


def token_filter(settings: GenerationConfig) -> Callable[[Tensor, Tensor], Tensor]:
    """What ``settings`` make of a distribution: repetition penalty, temperature, top-k, top-p, min-p, typical-p.

    Temperature, top-k and top-p are :func:`filter_log_probabilities`. The others are the logits processors of
    ``transformers``, which is imported only if one of them is on.

    Returns:
        A function of the ids that occurred, int64 `[n]`, and log-probabilities `[V]`, that returns the probabilities
        to draw from.

    Raises:
        ImportError: a setting needs ``transformers``, which cannot be imported.

    Example:
        >>> choose = token_filter(GenerationConfig(temperature=0.0))
        >>> choose(torch.tensor([0]), torch.tensor([0.3, 0.5, 0.2]).log()).tolist()
        [0.0, 1.0, 0.0]
    """
    penalise, narrow = _transformers_processors(settings)

    def choose(seen: Tensor, log_probabilities: Tensor) -> Tensor:
        for process in penalise:
            log_probabilities = process(seen[None], log_probabilities[None])[0]
        probabilities = filter_log_probabilities(
            log_probabilities, temperature=settings.temperature, top_k=settings.top_k, top_p=settings.top_p
        )
        for process in narrow:
            probabilities = process(seen[None], probabilities[None].log())[0].softmax(-1)
        return probabilities

    return choose


def _transformers_processors(settings: GenerationConfig) -> tuple[list[Callable], list[Callable]]:
    """Those that act before the temperature, and those that act last."""
    off = GenerationConfig()
    wanted = [
        name for name in ("repetition_penalty", "min_p", "typical_p") if getattr(settings, name) != getattr(off, name)
    ]
    if not wanted:
        return [], []
    try:
        from transformers import MinPLogitsWarper, RepetitionPenaltyLogitsProcessor, TypicalLogitsWarper
    except Exception as error:  # an installation that does not fit torch fails in many ways
        raise ImportError(f"generation.{wanted[0]} needs transformers ({error}): {how_to_install('hub')}") from None
    penalise: list[Callable] = []
    narrow: list[Callable] = []
    if "repetition_penalty" in wanted:
        penalise.append(RepetitionPenaltyLogitsProcessor(settings.repetition_penalty))
    if "min_p" in wanted:
        narrow.append(MinPLogitsWarper(settings.min_p))
    if "typical_p" in wanted:
        narrow.append(TypicalLogitsWarper(settings.typical_p))
    return penalise, narrow


def generate_tokens(
    model: SEMModel,
    prompt: Sequence[int],
    settings: GenerationConfig,
    *,
    stop_token: int | None = None,
    start: DecodingState | None = None,
) -> Iterator[int]:
    """Draw tokens one after the other; the same seed draws the same tokens on the same machine.

    The draw uses a generator of its own on the CPU and leaves torch's global one alone. The model is in
    evaluation mode while tokens are drawn.

    Args:
        model: what continues the prompt, by its ``prefill`` and ``step``.
        prompt: at least one token to continue.
        settings: how many tokens to draw and how; the prompt there is not used.
        stop_token: ends the text when it is drawn, and is not yielded; it is never the first token drawn.
        start: ``model.init_state(1)``, which several texts may share; each makes its own by default, with a copy of the
            parameters in it.

    Raises:
        ValueError: the prompt is empty.
        ImportError: as :func:`token_filter`.
        FloatingPointError: the model's probabilities are not finite.
    """
    if not prompt:
        raise ValueError("prompt: expected at least one token, got none")
    return _draw(model, list(prompt), settings, token_filter(settings), stop_token, start)


@torch.no_grad()
def _draw(
    model: SEMModel,
    prompt: list[int],
    settings: GenerationConfig,
    choose: Callable[[Tensor, Tensor], Tensor],
    stop_token: int | None,
    start: DecodingState | None,
) -> Iterator[int]:
    device = next(model.parameters()).device
    generator = torch.Generator().manual_seed(settings.seed)
    was_training = model.training
    model.eval()
    try:
        given = () if start is None else (start,)
        predicted, state = model.prefill(torch.tensor([prompt], device=device), *given)
        occurs = torch.zeros(predicted.shape[-1], dtype=torch.bool)
        occurs[prompt] = True
        for count in range(settings.max_new_tokens):
            log_probabilities = predicted[0].float().cpu()
            if count == 0 and stop_token is not None:
                log_probabilities[stop_token] = -math.inf
            if log_probabilities.isnan().any():
                raise FloatingPointError("the model's probabilities are not finite; its parameters are damaged")
            probabilities = choose(occurs.nonzero().squeeze(1), log_probabilities)
            token = int(torch.multinomial(probabilities, 1, generator=generator))
            if token == stop_token:
                return
            yield token
            occurs[token] = True
            if count + 1 < settings.max_new_tokens:
                predicted, state = model.step(torch.tensor([token], device=device), state)
    finally:
        model.train(was_training)


def generate_text(model: SEMModel, tokenizer: Tokenizer, settings: GenerationConfig) -> Iterator[str]:
    """The continuation of ``settings.prompt`` in pieces as they become readable.

    The model sees a document's beginning before the prompt, and the text ends where it ends the document.

    Raises:
        ValueError: the prompt is no Unicode text.
        ImportError: as :func:`token_filter`.
    """
    prompt = prompt_tokens(tokenizer, settings.prompt, name="generation.prompt")
    return readable(generate_tokens(model, prompt, settings, stop_token=tokenizer.eos), tokenizer)


def prompt_tokens(tokenizer: Tokenizer, text: str, *, name: str = "prompt") -> list[int]:
    """What a model reads before it continues ``text``: a document's beginning, and the text.

    Args:
        tokenizer: the model's.
        text: the prompt.
        name: what an error calls the text.

    Raises:
        ValueError: the text is no Unicode: what came as bytes that are no UTF-8 has half surrogates in their place.

    Example:
        >>> from sem.data import ByteTokenizer
        >>> prompt_tokens(ByteTokenizer(), "ab")
        [257, 97, 98]
    """
    try:
        text.encode()
    except UnicodeEncodeError as error:
        code = ord(text[error.start])
        got = f"the byte 0x{code - 0xDC00:02x}" if code >= 0xDC80 else f"half a surrogate pair, {code:#x},"
        raise ValueError(f"{name}: expected text in UTF-8, got {got} at position {error.start}") from None
    return [tokenizer.eos, *tokenizer.encode(text)]


def readable(tokens: Iterable[int], tokenizer: Tokenizer) -> Iterator[str]:
    """The text of ``tokens`` in pieces: a character of several bytes comes in one piece, bytes that are no UTF-8 become
    U+FFFD.

    Example:
        >>> from sem.data import ByteTokenizer
        >>> list(readable([110, 195, 169, 255], ByteTokenizer()))
        ['n', 'é', '\ufffd']
    """
    decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
    for token in tokens:
        if piece := decoder.decode(tokenizer.decode_bytes([token])):
            yield piece
    if piece := decoder.decode(b"", final=True):
        yield piece
