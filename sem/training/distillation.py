"""Distillation: a language model that learns from a trained one beside the text.

``loss = (1 - w) nll + w T^2 KL(teacher || model)``, both at the temperature T in the second part (G. Hinton and others,
2015, arXiv:1503.02531), and the unitary divergence as ever. Held-out text is scored without the teacher.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any, Protocol

import torch
from torch import Tensor

from sem.config import SEMConfig
from sem.config_sections import DistillationConfig
from sem.data import Tokenizer, tokenizer_of
from sem.precision import PrecisionPolicy, use_precision
from sem.sampler import ReadOut, SoftTargets
from sem.training.language import LanguageModelObjective
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
        self.identity = _digest(self.model.state_dict())

    @torch.no_grad()
    def read(self, tokens: Tensor) -> tuple[Tensor, ReadOut]:
        """The normalised waves, complex64 `[B, S, hidden_dim]`, and the head's weights; no gradients."""
        return self.model.waves(tokens), self._head


class DistillationObjective(LanguageModelObjective):
    """The likelihood of the text and the likeness to a teacher; ``nll`` and ``soft_loss`` in the figures, both in nats
    per target, are the two.

    Its state says which teacher it is: a run that goes on with another one would not be the same run.

    Args:
        teacher: whose predictions the model learns.
        settings: temperature and weight.
        device, compile: as :class:`~sem.training.language.LanguageModelObjective` takes them.
    """

    def __init__(
        self,
        teacher: Teacher,
        settings: DistillationConfig,
        device: torch.device | str = "cpu",
        *,
        compile: bool = False,
    ) -> None:
        super().__init__(device, compile=compile)
        self.teacher = teacher
        self.settings = settings

    def beside(self, model: Any, tokens: Tensor) -> dict[str, Any]:
        if not model.training:
            return {}
        read = self.teacher.read(tokens)
        return {"soft": SoftTargets(*read, temperature=self.settings.temperature, weight=self.settings.weight)}

    def report(self, totals: Mapping[str, float]) -> dict[str, float]:
        figures = super().report(totals)
        if "soft_sum" in totals:
            figures["soft_loss"] = totals["soft_sum"] / max(totals["items_sum"], 1.0)
        return figures

    def state_dict(self) -> dict[str, Any]:
        """The teacher's name and a digest of its parameters."""
        return {"teacher": self.teacher.name, "identity": self.teacher.identity}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """See that a run goes on with the teacher it had, unless its configuration names another one now.

        Raises:
            ValueError: what the same name stands for has changed meanwhile.
        """
        if state["teacher"] == self.teacher.name and state["identity"] != self.teacher.identity:
            raise ValueError(
                f"distillation.teacher = {self.teacher.name!r}: expected the parameters that the run began with, that "
                "model has been trained on; name its checkpoint of then"
            )


def build_objective(
    config: SEMConfig, policy: PrecisionPolicy, device: torch.device, tokenizer: Tokenizer | None = None
) -> LanguageModelObjective:
    """What ``config`` has a language model minimise: the likelihood of its text, and what a teacher says of it.

    ``tokenizer`` is that of the configuration by default, which is read where there is a teacher to compare it with.

    Raises:
        CheckpointError, ValueError: as :class:`RunTeacher`.
    """
    compile, distillation = config.training.compile, config.distillation
    if distillation.teacher is None:
        return LanguageModelObjective(device, compile=compile)
    tokenizer = tokenizer or tokenizer_of(config)
    teacher = RunTeacher(distillation.teacher, tokenizer, config.model.vocab_size, policy, device)
    return DistillationObjective(teacher, distillation, device, compile=compile)


def _digest(parameters: Mapping[str, Tensor]) -> str:
    """Equal only for equal bits under equal names."""
    digest = hashlib.blake2b(digest_size=16)
    for name, tensor in parameters.items():
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
