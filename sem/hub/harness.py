"""Exported models in lm-evaluation-harness, under the name ``sem``.

    python -m sem.hub.harness --model sem --model_args pretrained=DIR --tasks lambada_openai

is the harness's own command line with the model registered; in Python, hand :class:`SEMHarness` to
``lm_eval.simple_evaluate``. Every text begins behind the end of a document, as in training.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from sem.config_sections import GenerationConfig
from sem.extras import how_to_install
from sem.generation import generate_text
from sem.hub.pretrained import PretrainedSEMModel

try:
    from lm_eval.api.model import TemplateLM
    from lm_eval.api.registry import register_model
    from lm_eval.utils import get_rolling_token_windows, make_disjoint_window
except ImportError as error:
    raise ImportError(f"sem.hub.harness needs lm_eval ({error}): {how_to_install('eval')}") from None

_MOST_NEW_TOKENS = 256
"""The harness's own default."""


@register_model("sem")
class SEMHarness(TemplateLM):
    """A :class:`~sem.hub.pretrained.PretrainedSEMModel` as the harness asks for it.

    Args:
        pretrained: the model, or what its ``from_pretrained`` takes.
        batch_size: rows scored at once.
        device: where to compute.
        max_length: most tokens of a row; by default ``model.max_seq_length``. Of a longer context the end is kept, and
            a longer text is scored in windows.

    Raises:
        ValueError: as :meth:`~sem.hub.pretrained.PretrainedSEMModel.from_pretrained`; or ``batch_size`` is no number.
    """

    def __init__(
        self,
        pretrained: str | Path | PretrainedSEMModel,
        batch_size: int | str = 8,
        device: str = "cpu",
        max_length: int | None = None,
        max_batch_size: int | None = None,
    ) -> None:
        super().__init__()
        if not str(batch_size).isdecimal() or int(batch_size) < 1:
            raise ValueError(f"batch_size: expected an integer >= 1, got {batch_size!r}")
        found = pretrained
        self.model = found if isinstance(found, PretrainedSEMModel) else PretrainedSEMModel.from_pretrained(found)
        self.model.to(device).eval()
        self.batch_size = int(batch_size)
        self.max_length = self.model.config.model.max_seq_length if max_length is None else int(max_length)
        self._device = torch.device(device)

    @property
    def eot_token_id(self) -> int:
        """The boundary between documents, which every text begins behind."""
        return self.model.tokenizer.eos

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **_: Any) -> list[int]:
        """The ids of a text, behind the end of a document unless that is not wanted."""
        begin = [] if add_special_tokens is False else [self.eot_token_id]
        return begin + self.model.tokenizer.encode(string)

    def _loglikelihood_tokens(
        self, requests: Sequence[tuple[tuple[str, str] | None, list[int], list[int]]], **options: Any
    ) -> list[tuple[float, bool]]:
        """Log-likelihood of each continuation, the second list, behind its context; whether it is the greedy one."""
        rows = [(context + continuation)[-self.max_length - 1 :] for _, context, continuation in requests]
        order = sorted(range(len(rows)), key=lambda index: -len(rows[index]))  # rows of a batch alike in length
        answers: dict[int, tuple[float, bool]] = {}
        for first in range(0, len(order), self.batch_size):
            batch = order[first : first + self.batch_size]
            for index, scored in zip(batch, self._scored([rows[index] for index in batch]), strict=True):
                asked, _, continuation = requests[index]
                likelihood, best = (part[-len(continuation) :] if continuation else part[:0] for part in scored)
                answers[index] = float(likelihood.double().sum()), bool(best.all())
                if asked is not None:
                    self._remember("loglikelihood", asked, answers[index])
        return [answers[index] for index in range(len(rows))]

    @torch.inference_mode()
    def _scored(self, rows: list[list[int]]) -> Iterator[tuple[Tensor, Tensor]]:
        """Of each row's tokens but the first, the log-likelihood and whether it is the likeliest, both ``[S - 1]``. The
        padding is behind the text, where a causal model does not see it."""
        tokens = pad_sequence([torch.tensor(row, dtype=torch.int64) for row in rows], batch_first=True)
        tokens = tokens.to(self._device)
        predicted, targets = self.model(tokens[:, :-1]), tokens[:, 1:]
        likelihood = predicted.gather(-1, targets.unsqueeze(-1)).squeeze(-1).cpu()
        best = (predicted.argmax(-1) == targets).cpu()
        for row, one, other in zip(rows, likelihood, best, strict=True):
            yield one[: len(row) - 1], other[: len(row) - 1]

    def loglikelihood_rolling(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[float]:
        """Log-likelihood of each whole text, in windows of at most ``max_length`` tokens: each token is scored once."""
        answers = []
        for request in requests:
            (text,) = request.args
            windows = get_rolling_token_windows(
                token_list=self.tok_encode(text, add_special_tokens=False),
                prefix_token=self.eot_token_id,
                max_seq_len=self.max_length,
                context_len=1,
            )
            scored = self._loglikelihood_tokens([(None, *make_disjoint_window(window)) for window in windows])
            answers.append(sum(likelihood for likelihood, _ in scored))
            self._remember("loglikelihood_rolling", request.args, answers[-1])
        return answers

    def generate_until(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[str]:
        """What the model writes behind each context, up to the first of the texts in ``until``."""
        answers = []
        for request in requests:
            context, options = request.args
            until = options.get("until") or []
            settings = GenerationConfig(
                prompt=context,
                max_new_tokens=int(options.get("max_gen_toks", _MOST_NEW_TOKENS)),
                temperature=float(options.get("temperature", 1.0)) if options.get("do_sample") else 0.0,
            )
            answers.append(self._written(settings, [until] if isinstance(until, str) else list(until)))
            self._remember("generate_until", request.args, answers[-1])
        return answers

    def _remember(self, kind: str, asked: Any, answer: Any) -> None:
        """Let the harness keep an answer, where it was told to."""
        self.cache_hook.add_partial(kind, asked, answer)

    def _written(self, settings: GenerationConfig, until: list[str]) -> str:
        text = ""
        for piece in generate_text(self.model, self.model.tokenizer, settings):
            text += piece
            if ends := [place for place in map(text.find, until) if place >= 0]:
                return text[: min(ends)]
        return text


if __name__ == "__main__":
    from lm_eval.__main__ import cli_evaluate

    cli_evaluate()
