"""Exported models in transformers: ``import sem.hub.transformers``, and ``AutoConfig``, ``AutoModelForCausalLM`` and
``pipeline`` know them.

What attention keeps for every token, these models do not: the cache that ``generate`` hands from token to token is a
:class:`~sem.model.DecodingState` of constant size. Greedy tokens are those of ``sem generate``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional

from sem.extras import how_to_install
from sem.hub.pretrained import ARCHITECTURE, MODEL_TYPE, PREFIX, config_of
from sem.huggingface import huggingface_hub
from sem.model import DecodingState, SEMModel

huggingface_hub()  # transformers needs it too
try:
    from transformers import AutoConfig, AutoModelForCausalLM, GenerationMixin, PreTrainedConfig, PreTrainedModel
    from transformers.modeling_outputs import CausalLMOutputWithPast
    from transformers.utils import ModelOutput

    if "cache" not in CausalLMOutputWithPast.__dataclass_fields__:
        raise ImportError("this one's generate knows no cache by that name")
except Exception as error:  # an installation that does not fit torch fails in many ways
    raise ImportError(
        f"sem.hub.transformers needs transformers 5.24 or newer ({error}): {how_to_install('hub')}"
    ) from None

_ALIGNMENT = 64
"""Bytes to which torch aligns what it allocates on the CPU."""


class SEMTransformersConfig(PreTrainedConfig):
    """What transformers asks of a configuration, around the sections of :class:`sem.config.SEMConfig`.

    Args:
        sem: the sections, as :meth:`~sem.config.SEMConfig.to_dict` gives them; by default all settings' defaults.
    """

    model_type: ClassVar[str] = MODEL_TYPE
    sem: dict[str, Any] | None = None

    def __post_init__(self, **kwargs: Any) -> None:
        self.sem = self.sem or {}
        model = self.sections.model
        self.vocab_size, self.hidden_size = model.vocab_size, model.hidden_dim
        self.num_hidden_layers, self.max_position_embeddings = model.num_layers, model.max_seq_length
        self.tie_word_embeddings = False
        for derived in ("vocab_size", "hidden_size", "num_hidden_layers", "max_position_embeddings"):
            kwargs.pop(derived, None)
        super().__post_init__(**kwargs)

    @property
    def sections(self) -> Any:
        """The :class:`~sem.config.SEMConfig`."""
        return config_of({"sem": self.sem})


@dataclass  # not frozen: generate marks the one it is given
class StateCache:
    """What the tokens so far leave to those that follow, as ``generate`` keeps it.

    Attributes:
        state: of every row.
        positions: columns of ``input_ids`` that it stands for, padding included.
    """

    state: DecodingState
    positions: int

    is_compileable: ClassVar[bool] = False
    is_linear: ClassVar[tuple[bool, ...]] = (True,)

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """The columns of ``input_ids`` that are done, whatever ``layer_idx``: the state is that of all layers."""
        return self.positions

    def reordered(self, rows: Tensor) -> StateCache:
        """The rows ``[n]`` (int64) of the batch: one may occur several times, as beams do."""
        return StateCache(self.state.rows(rows.to(self.state.encoder.rows.device)), self.positions)


class SEMForCausalLM(PreTrainedModel, GenerationMixin):
    """:class:`~sem.model.SEMModel` as a model of transformers; made by ``AutoModelForCausalLM.from_pretrained``.

    Parameters stay float32 whatever ``dtype`` is asked for. Prompts of different lengths are padded on the left, and
    every row is the one it would be alone.

    Example:
        >>> from transformers import AutoConfig
        >>> sections = {"model": {"hidden_dim": 32, "num_layers": 1}}
        >>> model = AutoModelForCausalLM.from_config(AutoConfig.for_model("sem", sem=sections))
        >>> model.generate(torch.tensor([[257, 105]]), max_new_tokens=3, min_new_tokens=3, do_sample=False).shape
        torch.Size([1, 5])
    """

    config_class = SEMTransformersConfig
    base_model_prefix = PREFIX.removesuffix(".")
    main_input_name = "input_ids"
    _is_stateful = True
    _keep_in_fp32_modules_strict: ClassVar[list[str]] = ["model"]  # type: ignore[misc]

    def __init__(self, config: SEMTransformersConfig) -> None:
        super().__init__(config)
        self.model = SEMModel(config.sections)
        self.post_init()

    def _init_weights(self, module: Any) -> None:
        """Nothing: the model has initialised itself, and loading is strict."""

    @classmethod
    def from_pretrained(cls, *arguments: Any, output_loading_info: bool = False, **options: Any) -> Any:
        """As the base class's, but all parameters have to be there and no other.

        Raises:
            ValueError: some are missing or unexpected; they are named.
        """
        load: Any = super().from_pretrained
        model, found = load(*arguments, output_loading_info=True, **options)
        wrong = {what: sorted(found[f"{what}_keys"]) for what in ("missing", "unexpected") if found[f"{what}_keys"]}
        if wrong:
            told = "; ".join(f"{what}: {', '.join(names)}" for what, names in wrong.items())
            raise ValueError(f"{arguments[0]}: expected the parameters of {ARCHITECTURE}; {told}")
        for tensor in (*model.parameters(), *model.buffers()):
            # the library maps the file; a tensor that lies in it askew is read more slowly and its products round
            # otherwise
            if tensor.device.type == "cpu" and tensor.data_ptr() % _ALIGNMENT:
                tensor.data = tensor.data.clone()
        return (model, found) if output_loading_info else model

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        cache: StateCache | None = None,
        labels: Tensor | None = None,
        use_cache: bool | None = None,
        logits_to_keep: int = 0,
        return_dict: bool | None = None,
        **_: Any,
    ) -> ModelOutput | tuple[Any, ...]:
        """Log-probabilities of the next token (``logits``), and on request the mean loss and a cache.

        Args:
            input_ids: int64 ``[B, S]``; behind a cache, what comes after it.
            attention_mask: 0 where there is padding: on the left, or without a cache at either end of a row.
            cache: what the tokens before left, from a call with ``use_cache``; it is not changed.
            labels: int64 ``[B, S]``, the tokens themselves; -100 is ignored. Their loss is in ``loss``.
            use_cache: return a cache behind the last position; by default where one was given.
            logits_to_keep: 1 for the last position alone, 0 for all.

        Raises:
            ValueError: padding is where it cannot be, or labels or all logits are wanted behind a cache.
        """
        keep_state = cache is not None if use_cache is None else use_cache
        if cache is not None and (labels is not None or (logits_to_keep != 1 and input_ids.shape[1] > 1)):
            raise ValueError("cache: expected none where labels or the logits of all positions are wanted")
        mask = _checked_mask(input_ids, attention_mask, left=keep_state or cache is not None)
        after = None
        if keep_state and logits_to_keep != 1 and cache is None:
            after = self._advance(input_ids, mask, None)[1]
            logits = self._all(input_ids, mask)
        elif keep_state or cache is not None:
            last, after = self._advance(input_ids, mask, cache)
            logits = last.unsqueeze(1)
        else:
            logits = self._all(input_ids, mask)
            logits = logits[:, -logits_to_keep:] if logits_to_keep else logits
        loss = None
        if labels is not None:
            loss = functional.nll_loss(logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten(), ignore_index=-100)
        kept: Any = after if keep_state else None  # of the library's caches it needs nothing
        output = CausalLMOutputWithPast(loss=loss, logits=logits, cache=kept)
        return output.to_tuple() if return_dict is False else output

    def _all(self, tokens: Tensor, mask: Tensor | None) -> Tensor:
        """Log-probabilities at all positions. Rows padded on the left are moved to the beginning, where a causal model
        does not see what is behind them, and their results back."""
        if mask is None:
            return self.model(tokens)
        positions = torch.arange(tokens.shape[1], device=tokens.device)
        padding = mask.long().argmax(1, keepdim=True)
        ahead = (positions + padding) % tokens.shape[1]
        back = (positions - padding) % tokens.shape[1]
        found = self.model(tokens.gather(1, ahead))
        return found.gather(1, back.unsqueeze(-1).expand_as(found))

    def _advance(self, tokens: Tensor, mask: Tensor | None, cache: StateCache | None) -> tuple[Tensor, StateCache]:
        """Log-probabilities behind the last position, and the cache there."""
        if cache is not None:
            predicted, state = self.model.prefill(tokens, cache.state)
            return predicted, StateCache(state, cache.positions + tokens.shape[1])
        if mask is None:
            predicted, state = self.model.prefill(tokens)
            return predicted, StateCache(state, tokens.shape[1])
        start = self.model.init_state(1)
        rows = [self.model.prefill(row[real].unsqueeze(0), start) for row, real in zip(tokens, mask, strict=True)]
        state = DecodingState.joined([state for _, state in rows])
        return torch.cat([predicted for predicted, _ in rows]), StateCache(state, tokens.shape[1])

    def prepare_inputs_for_generation(
        self,
        input_ids: Tensor,
        cache: StateCache | None = None,
        attention_mask: Tensor | None = None,
        use_cache: bool | None = True,
        logits_to_keep: int = 1,
        **_: Any,
    ) -> dict[str, Any]:
        """Of the tokens, those that the cache has not seen."""
        seen = 0 if cache is None else cache.positions
        mask = None if attention_mask is None or cache is not None else attention_mask
        return {
            "input_ids": input_ids[:, seen:],
            "attention_mask": mask,
            "cache": cache,
            "use_cache": use_cache is not False,
            "logits_to_keep": logits_to_keep,
        }

    @staticmethod
    def _reorder_cache(cache: StateCache, beam_idx: Tensor) -> StateCache:
        return cache.reordered(beam_idx)

    @classmethod
    def _supports_default_dynamic_cache(cls) -> bool:
        return False


def _checked_mask(tokens: Tensor, mask: Tensor | None, *, left: bool) -> Tensor | None:
    """The rows' real positions, bool ``[B, S]``, one stretch in each; None where all are. ``left``: up to the end."""
    if mask is None:
        return None
    real = mask.bool()
    if real.shape != tokens.shape:
        raise ValueError(
            f"attention_mask: expected the shape of input_ids {list(tokens.shape)}, got {list(mask.shape)}"
        )
    if bool(real.all()):
        return None
    stretches = (real.int().diff(dim=1) == 1).sum(1) + real[:, 0]
    if bool((stretches != 1).any()) or (left and not bool(real[:, -1].all())):
        where = "on the left alone" if left else "at the ends of a row alone, and some text in each"
        raise ValueError(f"attention_mask: expected padding {where}")
    return real


AutoConfig.register(MODEL_TYPE, SEMTransformersConfig)
AutoModelForCausalLM.register(SEMTransformersConfig, SEMForCausalLM)
