"""What teaches a language model: another one of the same vocabulary. Here is the model of a run."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Protocol

import torch
from torch import Tensor

from sem.data import Tokenizer
from sem.precision import PrecisionPolicy, use_precision
from sem.sampler import ReadOut
from sem.training.trained_model import open_trained_model


class Teacher(Protocol):
    """A causal language model of the student's vocabulary.

    Attributes:
        name: what errors call it.
        identity: equal only for teachers that say the same.
    """

    @property
    def name(self) -> str: ...

    @property
    def identity(self) -> str: ...

    def read(self, tokens: Tensor) -> tuple[Tensor, ReadOut]:
        """The states `[B, S, width]` behind int64 ``tokens [B, S]``, without gradients, and what reads them out."""
        ...


class RunTeacher:
    """The model of a run as a teacher.

    Args:
        run: a run's folder, of which the newest undamaged checkpoint is taken, or a checkpoint.
        tokenizer: the student's.
        vocab_size: the student's ``model.vocab_size``.
        policy: the precision to compute in.
        device: where to.

    Raises:
        CheckpointError: there is no checkpoint, or none that is undamaged.
        ValueError: the teacher has another vocabulary than the student.
    """

    def __init__(
        self, run: str, tokenizer: Tokenizer, vocab_size: int, policy: PrecisionPolicy, device: torch.device
    ) -> None:
        trained = open_trained_model(run, [f"training.device={device}"])
        own = trained.config.model.vocab_size
        if trained.tokenizer.identity != tokenizer.identity or own != vocab_size:
            tokens = "the same tokenizer" if trained.tokenizer.identity == tokenizer.identity else "another tokenizer"
            raise ValueError(
                f"distillation.teacher = {run!r}: expected a model of the run's own tokenizer with "
                f"model.vocab_size = {vocab_size}, got one of {tokens} with {own}"
            )
        self.name = run
        self.model = trained.model.requires_grad_(False)
        use_precision(self.model, policy)
        with torch.no_grad(), self.model.stage("head"):
            self._head = self.model.sampler.weights()
        self.identity = digest(self.model.state_dict())

    @torch.no_grad()
    def read(self, tokens: Tensor) -> tuple[Tensor, ReadOut]:
        """The normalised waves, complex64 `[B, S, hidden_dim]`, and the head's weights; no gradients."""
        return self.model.waves(tokens), self._head


def digest(parameters: Mapping[str, Tensor], beside: str = "") -> str:
    """Equal only for equal bits under equal names, and equal texts ``beside`` them."""
    found = hashlib.blake2b(beside.encode(), digest_size=16)
    for name, tensor in parameters.items():
        found.update(f"{name} {tensor.dtype} {list(tensor.shape)}".encode())
        found.update(tensor.detach().cpu().reshape(-1).view(torch.uint8).numpy().tobytes())
    return found.hexdigest()
