"""A language model that comes from a run, a folder or a repository on the hub, and goes into the latter two.

This lives beside :class:`sem.model.SEMModel` and not in it: the model knows neither the runs that train it nor
``huggingface_hub``, which is optional. What is here is a :class:`~sem.model.SEMModel` in every other respect.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sem.config import SEMConfig
from sem.config_sections import GenerationConfig
from sem.data import Tokenizer, tokenizer_of
from sem.data.tokenizer import TOKENIZER_FILE
from sem.extras import how_to_install
from sem.files import replacing, write_text
from sem.hub.card import TEMPLATE, Provenance, card_fields, provenance
from sem.hub.tokenizer_files import TOKENIZER_CONFIG, tokenizer_config, tokenizer_json
from sem.huggingface import hub_errors, huggingface_hub
from sem.model import SEMModel
from sem.training.averages import averaged_parameters
from sem.training.checkpoint import load_parameters
from sem.training.run_folder import open_checkpoint, run_folder_of, saved_config, saved_step

huggingface_hub()  # the sentence that says how to install it
from huggingface_hub import ModelHubMixin  # noqa: E402

try:
    from safetensors import SafetensorError, safe_open
    from safetensors.torch import save
except ImportError:
    raise ImportError(f"models that go out or come in need safetensors: {how_to_install('hub')}") from None

CONFIG_FILE, WEIGHTS_FILE, GENERATION_FILE = "config.json", "model.safetensors", "generation_config.json"
MODEL_TYPE, ARCHITECTURE = "sem", "SEMForCausalLM"
SECTIONS_KEY = "sem"
"""The entry of ``config.json`` that holds the sections; what else is there is for transformers."""
PREFIX = "model."
"""What :class:`sem.hub.transformers.SEMForCausalLM` puts in front of the names of the parameters it saves."""


class PretrainedSEMModel(
    SEMModel,
    ModelHubMixin,
    library_name="sem",
    pipeline_tag="text-generation",
    model_card_template=TEMPLATE,
):
    """A :class:`~sem.model.SEMModel` with ``save_pretrained``, ``from_pretrained`` and ``push_to_hub``.

    A folder has the parameters (``model.safetensors``), the configuration (``config.json``), the tokenizer
    (``tokenizer.json``), a model card and what transformers asks for, see :mod:`sem.hub.transformers`.

    The mixin rebuilds a configuration that is a dataclass from the file's top-level keys and ignores those it does not
    know, which would give a configuration of sections their defaults. Here the configuration is also taken as the
    mapping that the file holds, which the mixin hands over as it is, and is checked like any other.

    Args:
        config: the configuration, or the content of a ``config.json``.
        tokenizer: of the model's text; by default what ``config.data.tokenizer`` names, looked up when it is needed.

    Example:
        >>> import tempfile
        >>> config = SEMConfig().with_overrides("model.hidden_dim=32", "model.num_layers=1")
        >>> folder = tempfile.mkdtemp()
        >>> model = PretrainedSEMModel(config)
        >>> model.save_pretrained(folder)
        >>> again = PretrainedSEMModel.from_pretrained(folder)
        >>> again.config == config, again.sampler.weight.equal(model.sampler.weight)
        (True, True)
    """

    def __init__(self, config: SEMConfig | Mapping[str, Any], tokenizer: Tokenizer | None = None) -> None:
        super().__init__(config if isinstance(config, SEMConfig) else config_of(config))
        self._tokenizer = tokenizer
        self.origin = Provenance()

    @property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer of the model's text.

        Raises:
            ValueError: the file that the configuration names cannot be read.
        """
        if self._tokenizer is None:
            self._tokenizer = tokenizer_of(self.config)
        return self._tokenizer

    @classmethod
    def from_run(
        cls, run: str | Path, *, checkpoint: str | Path | None = None, averaged: bool = False
    ) -> PretrainedSEMModel:
        """The model of a run, in evaluation mode on the CPU.

        Args:
            run: a run's folder, of which the newest undamaged checkpoint is taken, or a checkpoint.
            checkpoint: another checkpoint to take.
            averaged: take the averages over training (``training.ema_decay``) in place of the last parameters.

        Raises:
            CheckpointError: there is no checkpoint, or none that is undamaged.
            ValueError: the checkpoint is not this model's, or holds no averages.
        """
        path, content = open_checkpoint(run if checkpoint is None else checkpoint)
        config = saved_config(content)
        folder = run_folder_of(Path(run))
        model = cls(config, tokenizer_of(config, folder))
        try:
            load_parameters(model, averaged_parameters(content) if averaged else content)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from None
        model.origin = provenance(folder, saved_step(content), averaged=averaged)
        return model.eval()

    @classmethod
    def from_pretrained(  # type: ignore[override]  # returns this class
        cls,
        pretrained_model_name_or_path: str | Path,
        *,
        revision: str | None = None,
        token: str | bool | None = None,
        cache_dir: str | Path | None = None,
        force_download: bool = False,
        local_files_only: bool = False,
    ) -> PretrainedSEMModel:
        """The model of a folder, or of a repository on the hub, in evaluation mode on the CPU.

        All parameters have to be there, and no other.

        Args:
            pretrained_model_name_or_path: a folder that :meth:`save_pretrained` or ``sem export`` wrote, or the name of
                a repository with its content.
            revision: branch, tag or commit of the repository.
            token: to read a private repository; by default the login's.
            cache_dir: where repositories are kept; by default where the library keeps them.
            force_download: even what is kept already.
            local_files_only: nothing but what is kept already.

        Raises:
            ValueError: the folder is damaged or no model's.
            HubError: the repository cannot be had.
        """
        folder = Path(pretrained_model_name_or_path)
        if not folder.is_dir():
            folder = _download(
                str(pretrained_model_name_or_path),
                revision=revision,
                token=token,
                cache_dir=cache_dir,
                force_download=force_download,
                local_files_only=local_files_only,
            )
        read_entries(folder)  # in words what the mixin would trip over
        return super().from_pretrained(folder)

    @classmethod
    def _from_pretrained(  # type: ignore[override]  # what is a folder already needs no login
        cls, *, model_id: str, config: Mapping[str, Any], **_: Any
    ) -> PretrainedSEMModel:
        folder = Path(model_id)
        try:
            settings = config_of(config)
        except ValueError as error:
            raise ValueError(f"{folder / CONFIG_FILE}: {error}") from None
        model = cls(settings, tokenizer_of(settings, folder))
        weights = read_weights(folder / WEIGHTS_FILE)
        try:
            load_parameters(model, {"model": weights})
        except ValueError as error:
            raise ValueError(f"{folder}: {error}") from None
        return model.eval()

    def save_pretrained(self, save_directory: str | Path, **options: Any) -> str | None:
        """Write the model, its tokenizer and, if there is none, its card into a folder; each file whole or not at all.

        Options are the mixin's; ``model_card_kwargs={"title": ...}`` says what the card calls the model, by default by
        the name of the folder. :func:`sem.hub.export.export_run` writes the whole folder or nothing.

        Raises:
            ValueError: the tokenizer's file cannot be read.
            OSError: a file cannot be written.
        """
        fields = {"title": Path(save_directory).name, **(options.pop("model_card_kwargs", None) or {})}
        return super().save_pretrained(save_directory, model_card_kwargs=fields, **options)

    def push_to_hub(self, repo_id: str, **options: Any) -> str:  # type: ignore[override]  # but they are the mixin's
        """Upload what :meth:`save_pretrained` writes, in one commit, to a repository that is made if need be.

        Options are the mixin's: ``private``, ``token``, ``branch``, ``commit_message`` and others.

        Returns:
            The commit's address.

        Raises:
            HubError: the hub refused or failed.
        """
        fields = {"title": repo_id, **(options.pop("model_card_kwargs", None) or {})}
        with hub_errors(f"{repo_id}: the model cannot be pushed"):
            return super().push_to_hub(repo_id, model_card_kwargs=fields, **options)

    def _save_pretrained(self, save_directory: Path) -> None:
        tokenizer = self.tokenizer
        names: dict[int, str] = {}
        tensors, aliases = {}, {}
        for name, tensor in self.state_dict(keep_vars=True).items():
            first = names.setdefault(id(tensor), name)
            if first == name:
                tensors[name] = tensor.detach().contiguous()
            else:  # tied: the format has no two names for one tensor
                aliases[name] = first
        with replacing(save_directory / WEIGHTS_FILE) as file:
            file.write(save(tensors, metadata={"format": "pt", **aliases}))
        for name, entries in {
            TOKENIZER_FILE: tokenizer_json(tokenizer),
            TOKENIZER_CONFIG: tokenizer_config(tokenizer),
            GENERATION_FILE: generation_entries(self.config.generation, tokenizer),
            CONFIG_FILE: config_entries(self.config),
        }.items():
            write_text(save_directory / name, json.dumps(entries, indent=2, ensure_ascii=False) + "\n")

    def generate_model_card(self, *args: Any, **fields: Any) -> Any:
        """The card, a ``huggingface_hub.ModelCard``; ``title`` among ``fields`` is what it is called."""
        count = sum(parameter.numel() for parameter in self.parameters())
        own = card_fields(self.config, count, self.origin, fields.pop("title"))
        return super().generate_model_card(*args, **(own | fields))


def config_entries(config: SEMConfig) -> dict[str, Any]:
    """The content of ``config.json``."""
    return {"model_type": MODEL_TYPE, "architectures": [ARCHITECTURE], SECTIONS_KEY: config.to_dict()}


def config_of(entries: Mapping[str, Any]) -> SEMConfig:
    """The configuration in the content of a ``config.json``.

    Raises:
        ValueError: there is none, or it is an impossible one.
    """
    sections = entries.get(SECTIONS_KEY)
    if not isinstance(sections, Mapping):
        kind = f" of the kind {entries['model_type']!r}" if "model_type" in entries else ""
        raise ValueError(f"expected the configuration of a sem model, an entry {SECTIONS_KEY!r}, got one{kind} without")
    return SEMConfig.from_dict(sections)


def generation_entries(settings: GenerationConfig, tokenizer: Tokenizer) -> dict[str, Any]:
    """The content of ``generation_config.json``: what ``sem generate`` does, for transformers' ``generate``."""
    entries: dict[str, Any] = {
        "bos_token_id": tokenizer.eos,
        "eos_token_id": tokenizer.eos,
        "pad_token_id": tokenizer.pad,
        "max_new_tokens": settings.max_new_tokens,
        "min_new_tokens": 1,  # an empty text is never drawn
        "repetition_penalty": settings.repetition_penalty,
        "do_sample": settings.temperature > 0,
        "top_k": settings.top_k,  # the library's own default is 50
    }
    if settings.temperature > 0:
        entries |= {"temperature": settings.temperature, "top_p": settings.top_p, "typical_p": settings.typical_p}
        if settings.min_p:
            entries["min_p"] = settings.min_p
    return entries


def read_entries(folder: Path) -> dict[str, Any]:
    """The content of ``config.json`` in ``folder``.

    Raises:
        ValueError: there is none, or it is no JSON mapping.
    """
    path = folder / CONFIG_FILE
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ValueError(f"{folder}: expected a folder that sem export wrote, it has no {CONFIG_FILE}") from None
    except (ValueError, OSError) as error:  # a UnicodeDecodeError is a ValueError
        raise ValueError(f"{path}: damaged or no configuration ({error})") from None
    if not isinstance(entries, dict):
        raise ValueError(f"{path}: expected a mapping, got a {type(entries).__name__}")
    return entries


def read_weights(path: Path) -> dict[str, Any]:
    """The tensors by name, on the CPU, aliases of tied ones included.

    Raises:
        ValueError: the file is missing, truncated, altered in its header or of another format.
    """
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - it is no mapping
            metadata = file.metadata() or {}
    except FileNotFoundError:
        raise ValueError(f"{path.parent}: expected a folder that sem export wrote, it has no {path.name}") from None
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{path}: damaged or no safetensors file ({error})") from None
    # of tensors that several names share, the file holds one and says what the others are
    tensors |= {alias: tensors[name] for alias, name in metadata.items() if name in tensors}
    if all(name.startswith(PREFIX) for name in tensors):
        tensors = {name.removeprefix(PREFIX): tensor for name, tensor in tensors.items()}
    return tensors


def _download(name: str, **options: Any) -> Path:
    from huggingface_hub.errors import HFValidationError

    patterns = [CONFIG_FILE, WEIGHTS_FILE, TOKENIZER_FILE]
    try:
        with hub_errors(f"{name}: the model cannot be fetched"):
            return Path(huggingface_hub().snapshot_download(name, allow_patterns=patterns, **options))
    except HFValidationError:
        raise ValueError(f"{name!r}: expected a folder, or a repository's name, owner/name") from None
