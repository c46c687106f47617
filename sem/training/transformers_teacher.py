"""A causal language model of the transformers library as a teacher, from a folder or from the hub.

Its weights are read as safetensors and no code that comes with it is run. Its ids have to stand for what the student's
do, and it has to be causal: that is tried, since the library offers models that see what they are to predict.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from sem.data import Tokenizer
from sem.data.file_tokenizer import FileTokenizer
from sem.data.tokenizer import TOKENIZER_FILE
from sem.extras import how_to_install
from sem.huggingface import hub_errors, huggingface_hub
from sem.precision import PrecisionPolicy, outside_autocast
from sem.sampler import ReadOut
from sem.training.teachers import digest

CONFIG_FILE = "config.json"
"""By which a folder is known as a model's of transformers."""
WEIGHTS_FILES = ("model.safetensors", "model.safetensors.index.json")
"""One of these says where the weights are."""
_FETCHED = (CONFIG_FILE, TOKENIZER_FILE, *WEIGHTS_FILES, "model-*.safetensors")
_HUB_NAME = re.compile(r"\w[\w.-]*/\w[\w.-]*(@[\w./-]+)?")
_PASSING = ("_name_or_path", "transformers_version")
"""Entries of a model's configuration that say nothing of what it computes."""
_LOUD = 100.0
"""The largest logit at which a head is tried: whatever bounds or bends logits is seen there."""


def is_hub_name(name: str) -> bool:
    """Whether ``name`` may be that of a repository, with a revision perhaps.

    Example:
        >>> [is_hub_name(name) for name in ("owner/model", "owner/model@main", "runs/a/b", "../model", "runs/a.pt")]
        [True, True, False, False, False]
    """
    return _HUB_NAME.fullmatch(name) is not None and not name.endswith(".pt")


class LinearReadOut(NamedTuple):
    """A head that is one linear map: ``matrix [vocab, width]`` and ``bias [vocab]``, float32, or no bias."""

    matrix: Tensor
    bias: Tensor | None

    def log_probabilities(self, states: Tensor) -> Tensor:
        """Of ``states [n, width]``, but for a constant for each row; computed in float32 whatever autocast says."""
        with outside_autocast(states.device.type):
            return functional.linear(states.float(), self.matrix, self.bias)


class RowsReadOut:
    """Any head, whose model computes a row of tokens when it is asked for, and the last one is kept: a chunk of tokens
    may end in the middle of a row.

    Args:
        logits: of tokens `[1, S]`, `[1, S, vocab]`.
        tokens: int64 `[B, S]`.
    """

    def __init__(self, logits: Callable[[Tensor], Tensor], tokens: Tensor) -> None:
        self._logits = logits
        self._tokens = tokens
        self._row = -1
        self._kept = torch.empty(0)

    @torch.compiler.disable
    @torch.no_grad()
    def log_probabilities(self, places: Tensor) -> Tensor:
        """At ``places [n, 1]``, which count the tokens row by row and follow each other; a constant for each may be
        missing."""
        length = self._tokens.shape[1]
        place, end = int(places[0]), int(places[-1]) + 1
        pieces = []
        while place < end:
            row, first = divmod(place, length)
            if row != self._row:
                self._kept, self._row = self._logits(self._tokens[row : row + 1])[0], row
            pieces.append(self._kept[first : first + end - place])
            place += len(pieces[-1])
        return torch.cat(pieces).float()


class TransformersTeacher:
    """A causal language model of transformers as a teacher, in evaluation mode and float32, without gradients.

    Where a linear map reads the last hidden states, they are what is kept and that is what reads them out. Else, where
    logits are bounded or scaled, say, a row's are computed when they are asked for. What the model has beyond the
    student's vocabulary, as padding, is left out.

    Args:
        name: a folder with ``config.json``, safetensors and ``tokenizer.json``, or ``owner/name`` or
            ``owner/name@revision`` of a repository on the hub with these.
        tokenizer: the student's.
        vocab_size: the student's ``model.vocab_size``.
        longest: tokens of the longest row.
        policy: the precision to compute in; no stage of this model is pinned.
        device: where to.

    Raises:
        ValueError: the folder is damaged or of another kind of model, its ids stand for other things or are too few,
            or the rows are too long for it.
        HubError: the repository cannot be had.
        ImportError: transformers, or what reads its files, is not installed.
    """

    def __init__(
        self,
        name: str,
        tokenizer: Tokenizer,
        vocab_size: int,
        longest: int,
        policy: PrecisionPolicy,
        device: torch.device,
    ) -> None:
        self.name = name
        self._told = f"distillation.teacher = {name!r}"
        self._policy = policy
        self._vocab_size = vocab_size
        library = self._library()
        folder = Path(name) if Path(name).is_dir() else self._fetched()
        entries = self._entries(folder, library.CONFIG_MAPPING)
        self._require_ids_of(tokenizer, folder)
        # whoever opens it, in the middle of a training say, draws as before
        with _quiet(library), torch.random.fork_rng(devices=()):
            config = self._read(library.AutoConfig, folder)
            if type(config) not in library.MODEL_FOR_CAUSAL_LM_MAPPING:
                raise ValueError(f"{self._told}: expected a causal language model, got the kind {config.model_type!r}")
            config.use_cache, config.return_dict = False, True
            self.longest = getattr(config.get_text_config(), "max_position_embeddings", None)
            self._require_length(longest)
            model, found = self._read(
                library.AutoModelForCausalLM,
                folder,
                config=config,
                dtype=torch.float32,
                use_safetensors=True,
                output_loading_info=True,
            )
        if missing := sorted(found["missing_keys"]):
            raise ValueError(f"{self._told}: damaged, its weights lack {missing[0]}, {len(missing)} tensors in all")
        self._own(model)
        self.model: Any = model.to(device).eval().requires_grad_(False)
        self._body: Any = None
        self._head = self._tried()
        entries = {key: value for key, value in entries.items() if key not in _PASSING}
        self.identity = digest(self.model.state_dict(), json.dumps(entries, sort_keys=True))

    @torch.no_grad()
    def read(self, tokens: Tensor) -> tuple[Tensor, ReadOut]:
        """The last hidden states `[B, S, width]` and the head's weights; or the tokens' places, int64 `[B, S, 1]`, and
        what computes their rows. No gradients.

        Raises:
            ValueError: a row is longer than the model's context.
        """
        self._require_length(tokens.shape[1])
        if self._head is None:
            places = torch.arange(tokens.numel(), device=tokens.device).view(*tokens.shape, 1)
            return places, RowsReadOut(self._logits, tokens)
        with self._precision():
            return self._body(input_ids=tokens).last_hidden_state, self._head

    def _logits(self, tokens: Tensor) -> Tensor:
        with self._precision():
            return self.model(input_ids=tokens).logits[..., : self._vocab_size]

    def _precision(self) -> ExitStack:
        """What the model runs in wherever it is called from; a head is called outside its student's autocast."""
        contexts = ExitStack()
        contexts.enter_context(self._policy.forward_context())
        contexts.enter_context(self._policy.stage_context(pinned=False))
        return contexts

    def _library(self) -> Any:
        try:
            import transformers

            transformers.AutoModelForCausalLM  # noqa: B018 - the names are loaded lazily
        except Exception as error:  # an installation that does not fit torch fails in many ways
            raise ImportError(
                f"{self._told}: a teacher that is no run needs transformers ({error}): {how_to_install('hub')}"
            ) from None
        return transformers

    def _fetched(self) -> Path:
        """The repository's folder on this machine."""
        repo, _, revision = self.name.partition("@")
        with hub_errors(f"{self._told}: there is no such run or folder here, and from the hub it cannot be fetched"):
            fetch = huggingface_hub().snapshot_download
            return Path(fetch(repo, revision=revision or None, allow_patterns=list(_FETCHED)))

    def _entries(self, folder: Path, known: Any) -> dict[str, Any]:
        """The content of ``config.json``, of a model that the library knows and that has its files here."""
        path = folder / CONFIG_FILE
        try:
            entries = json.loads(path.read_text(encoding="utf-8"))
        except (ValueError, OSError) as error:  # a UnicodeDecodeError is a ValueError
            raise ValueError(f"{self._told}: {path} is damaged or cannot be read ({error})") from None
        kind = entries.get("model_type") if isinstance(entries, dict) else None
        if kind == "sem":
            raise ValueError(f"{self._told}: expected a run or a model that transformers knows, got an export of a run")
        if not isinstance(kind, str) or kind not in known:
            raise ValueError(
                f"{self._told}: expected a model that transformers knows, got the kind {kind!r}; a model's own code is "
                "never run"
            )
        if not any((folder / name).is_file() for name in WEIGHTS_FILES):
            raise ValueError(f"{self._told}: expected weights as safetensors, {' or '.join(WEIGHTS_FILES)}, found none")
        return entries

    def _require_ids_of(self, tokenizer: Tokenizer, folder: Path) -> None:
        """See that each of the student's ids stands for the same here."""
        wanted = f"{self._told}: expected the run's own tokenizer"
        if not (folder / TOKENIZER_FILE).is_file():
            raise ValueError(f"{wanted} as its {TOKENIZER_FILE}, which is not there")
        try:
            own = FileTokenizer.from_file(folder / TOKENIZER_FILE)
        except ValueError as error:
            raise ValueError(f"{wanted}, its {TOKENIZER_FILE} is none: {str(error).partition(': ')[2]}") from None
        if own.identity == tokenizer.identity:
            return
        for index in range(tokenizer.vocab_size):
            here, there = tokenizer.decode_bytes([index]), own.decode_bytes([index])
            if here != there:
                raise ValueError(f"{wanted}, in which id {index} stands for {here!r}, its own has {there!r} there")
        if own.eos != tokenizer.eos:
            raise ValueError(f"{wanted}, in which id {tokenizer.eos} ends a document, in its own {own.eos} does")

    def _require_length(self, length: int) -> None:
        if self.longest is not None and length > self.longest:
            raise ValueError(
                f"{self._told}: expected a model of rows of {length} tokens (data.seq_length), this one's "
                f"max_position_embeddings is {self.longest}"
            )

    def _read(self, kind: Any, folder: Path, **options: Any) -> Any:
        try:
            return kind.from_pretrained(folder, local_files_only=True, trust_remote_code=False, **options)
        except Exception as error:  # the library, and those it calls, raise whatever comes
            raise ValueError(f"{self._told}: damaged or not to be loaded ({_first_line(error)})") from None

    def _own(self, model: nn.Module) -> None:
        """Take the weights out of the files, which the library maps: a run's teacher stays what it was, whatever
        becomes of them, and lies in memory as any other model."""
        for tensor in (*model.parameters(), *model.buffers()):
            tensor.data = tensor.data.clone()
        for name, parameter in model.named_parameters():
            if not bool(parameter.isfinite().all()):
                raise ValueError(f"{self._told}: damaged, {name} has entries that are not finite")

    @torch.no_grad()
    def _tried(self) -> LinearReadOut | None:
        """The model's head if that is a linear map of the last hidden states; from a row of four tokens or fewer, and
        from the same with another last one.

        Raises:
            ValueError: what is predicted depends on what follows, or the logits are fewer than the student's ids.
        """
        device = next(self.model.parameters()).device
        tokens = torch.arange(min(4, self.longest or 4), device=device).repeat(2, 1)
        tokens[1, -1] += 1
        with outside_autocast(device.type):
            logits = self.model(input_ids=tokens).logits
            if logits.shape[-1] < self._vocab_size:
                raise ValueError(
                    f"{self._told}: expected logits of model.vocab_size = {self._vocab_size} ids or more, "
                    f"got {logits.shape[-1]}"
                )
            if not _near(logits[0, :-1], logits[1, :-1]):
                raise ValueError(
                    f"{self._told}: expected a causal model, this one's predictions depend on what follows"
                )
            head, base = self.model.get_output_embeddings(), self.model.base_model
            for body in (base, getattr(base, "decoder", None)):
                if type(head) is nn.Linear and self._reads(head, body, tokens, logits):
                    self._body = body
                    bias = None if head.bias is None else head.bias[: self._vocab_size]
                    return LinearReadOut(head.weight[: self._vocab_size], bias)
        return None

    def _reads(self, head: nn.Linear, body: Any, tokens: Tensor, logits: Tensor) -> bool:
        """Whether ``logits`` of ``tokens`` are ``head``'s of what ``body`` gives, and still are where that is loud."""
        if body is None or body is self.model:
            return False
        states = getattr(body(input_ids=tokens), "last_hidden_state", None)
        if states is None or states.shape[-1] != head.in_features or not _near(head(states), logits):
            return False
        states = states * (_LOUD / logits.abs().max().clamp_min(1e-9))

        def speak_up(module: nn.Module, given: Any, output: Any) -> Any:
            output["last_hidden_state"] = states
            return output

        with body.register_forward_hook(speak_up):
            return _near(head(states), self.model(input_ids=tokens).logits)


def _near(found: Tensor, expected: Tensor) -> bool:
    """Equal but for the rounding of float32."""
    scale = float(expected.abs().max()) if expected.numel() else 0.0
    return found.shape == expected.shape and torch.allclose(found, expected, rtol=0, atol=2e-5 * scale)


def _first_line(error: Exception) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)


@contextmanager
def _quiet(library: Any) -> Iterator[None]:
    """Keep the library from reports and bars of its own: what is wrong is said here."""
    logging = library.utils.logging
    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity(logging.CRITICAL)
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()
