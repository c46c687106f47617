"""Distillation: a language model that learns from a trained one beside the text.

``loss = (1 - w) nll + w T^2 KL(teacher || model)``, both at the temperature T in the second part (G. Hinton and others,
2015, arXiv:1503.02531), and the unitary divergence as ever. Held-out text is scored without the teacher.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sem.config import SEMConfig
from sem.config_sections import DistillationConfig
from sem.data import Tokenizer, tokenizer_of
from sem.precision import PrecisionPolicy
from sem.run_names import CHECKPOINTS
from sem.sampler import SoftTargets
from sem.training.checkpoint import CheckpointMissing
from sem.training.language import LanguageModelObjective
from sem.training.teachers import RunTeacher, Teacher
from sem.training.transformers_teacher import CONFIG_FILE, TransformersTeacher, is_hub_name


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
                "model is another one now; name its checkpoint, folder or revision of then"
            )


def build_objective(
    config: SEMConfig, policy: PrecisionPolicy, device: torch.device, tokenizer: Tokenizer | None = None
) -> LanguageModelObjective:
    """What ``config`` has a language model minimise: the likelihood of its text, and what a teacher says of it.

    ``tokenizer`` is that of the configuration by default, which is read where there is a teacher to compare it with.

    Raises:
        CheckpointError, ValueError, HubError, ImportError: as :func:`open_teacher`.
    """
    compile, distillation = config.training.compile, config.distillation
    if distillation.teacher is None:
        return LanguageModelObjective(device, compile=compile)
    teacher = open_teacher(distillation.teacher, config, tokenizer or tokenizer_of(config), policy, device)
    return DistillationObjective(teacher, distillation, device, compile=compile)


def open_teacher(
    name: str, config: SEMConfig, tokenizer: Tokenizer, policy: PrecisionPolicy, device: torch.device
) -> Teacher:
    """The teacher called ``name``: what is on this machine goes before a repository on the hub, a run before a model of
    transformers.

    Args:
        name: a run's folder, a checkpoint, a folder with ``config.json``, or ``owner/name`` on the hub, with
            ``@revision`` behind it perhaps.
        config: the student's.
        tokenizer: the student's.
        policy: the precision to compute in.
        device: where to.

    Raises:
        CheckpointError, ValueError: as :class:`~sem.training.teachers.RunTeacher`; or the folder is of neither kind.
        ValueError, HubError, ImportError: as :class:`~sem.training.transformers_teacher.TransformersTeacher`.
    """
    folder, vocab_size = Path(name), config.model.vocab_size
    if folder.is_dir():
        of_transformers = not (folder / CHECKPOINTS).is_dir()
        if of_transformers and not (folder / CONFIG_FILE).exists():
            raise ValueError(
                f"distillation.teacher = {name!r}: expected the folder of a run or of a model of transformers, it has "
                f"neither {CHECKPOINTS} nor {CONFIG_FILE}"
            )
    else:
        of_transformers = not folder.exists() and is_hub_name(name)
    if of_transformers:
        return TransformersTeacher(name, tokenizer, vocab_size, config.seq_length, policy, device)
    if not folder.exists():
        raise CheckpointMissing(
            f"distillation.teacher = {name!r}: there is no such checkpoint or folder here, and no name of the form "
            "owner/name, as a repository on the hub has"
        )
    return RunTeacher(name, tokenizer, vocab_size, policy, device)
