"""What a training job on the hub is made of, from the configuration alone; nothing is sent from here."""

from __future__ import annotations

import json
import os
import re
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sem.config import SEMConfig
from sem.config_sections import TOKENIZER_SIZES
from sem.extras import DISTRIBUTION
from sem.huggingface import huggingface_hub
from sem.masking import MASK, add_secrets

TOKEN = "HF_TOKEN"
_INSTALL_TOOL = "{{ command -v {tool} >/dev/null || {{ apt-get update -qq && apt-get install -y -qq {package}; }}; }}"
_USER_INFO = re.compile(r"://([^/@]*)@")
_QUERY_SECRET = re.compile(r"[?&#;][^=&#;]*(token|secret|passw|key|auth|sig)[^=&#;]*=", re.IGNORECASE)
_VARIABLE = re.compile(r"(?:[\w.-]+:)?\$\{([A-Z_][A-Z0-9_]*)\}")


@dataclass(frozen=True, kw_only=True)
class Job:
    """A job as :meth:`huggingface_hub.HfApi.run_job` takes it, except that secrets are names without values.

    Example:
        >>> source = "launch.source=git+https://example.org/sem"
        >>> job = build_job(SEMConfig().with_overrides(source, "launch.hub_repo=me/waves"))
        >>> job.flavor, job.secrets
        ('l40sx1', ('HF_TOKEN',))
    """

    image: str
    command: list[str]
    env: dict[str, str]
    secrets: tuple[str, ...]
    flavor: str
    timeout: str
    namespace: str | None

    def to_mapping(self, secrets: Mapping[str, str]) -> dict[str, Any]:
        """The arguments of ``run_job``, with ``secrets`` for the values."""
        return {
            "image": self.image,
            "flavor": self.flavor,
            "timeout": self.timeout,
            "namespace": self.namespace,
            "secrets": dict(secrets),
            "env": self.env,
            "command": self.command,
        }

    def describe(self) -> str:
        """What would be sent, as YAML with masked secrets."""
        import yaml

        shown = self.to_mapping(dict.fromkeys(self.secrets, MASK))
        return yaml.safe_dump(shown, sort_keys=False, allow_unicode=True, width=float("inf"))


def build_job(config: SEMConfig) -> Job:
    """The job that trains ``config`` exactly as it was checked here.

    The configuration travels as text in the environment variable ``SEM_CONFIG``; the command installs
    ``launch.source`` and trains under ``python -m sem.hub``, which keeps the run's folder in ``launch.hub_repo``.

    Raises:
        ValueError: one line for every setting that a job cannot have.
        ImportError: huggingface_hub is missing.
    """
    if problems := list(_problems(config)):
        raise ValueError("\n".join(problems))
    launch = config.launch
    source = launch.source or ""
    extras = "hub,lightning" if config.training.engine == "lightning" else "hub"
    return Job(
        image=launch.image,
        command=["bash", "-c", _script(config)],
        env={
            "SEM_CONFIG": json.dumps(config.to_dict(), ensure_ascii=False),
            # a URL needs the name in front of it; a path in the image takes the extras behind it
            "SEM_REQUIREMENT": f"{DISTRIBUTION}[{extras}] @ {source}" if "://" in source else f"{source}[{extras}]",
            "PIP_BREAK_SYSTEM_PACKAGES": "1",  # the container is the environment
            "PYTHONUNBUFFERED": "1",
        },
        secrets=launch.secrets,
        flavor=launch.flavor,
        timeout=launch.timeout,
        namespace=launch.namespace,
    )


def read_secrets(names: tuple[str, ...]) -> dict[str, str]:
    """The values of the environment variables ``names``; ``HF_TOKEN`` may also come from ``hf auth login``.

    Raises:
        ValueError: naming those that are not set.
    """
    found = {name: os.environ.get(name) for name in names}
    if TOKEN in found:
        found[TOKEN] = huggingface_hub().get_token()
    if missing := [name for name, value in found.items() if not value]:
        raise ValueError(f"launch.secrets: expected an environment variable of each name, {missing[0]} is not set")
    values = {name: value for name, value in found.items() if value}
    add_secrets(values.values())
    return values


def _problems(config: SEMConfig) -> Iterator[str]:
    launch, data = config.launch, config.data
    library = huggingface_hub()
    flavors = [flavor.value for flavor in library.JobHardware]
    if launch.flavor not in flavors:
        known = f"one of those that huggingface_hub {library.__version__} knows: {', '.join(flavors)}"
        yield f"launch.flavor = {launch.flavor!r}: expected {known}"
    if launch.hub_repo is None:
        yield "launch.hub_repo = None: expected owner/name, the job's own disk is gone when it ends"
    if TOKEN not in launch.secrets:
        yield f"launch.secrets: expected {TOKEN} among them, the job writes to launch.hub_repo with it"
    if launch.source is None:
        yield "launch.source = None: expected what pip installs in the job, such as git+https://host/owner/sem@commit"
    elif login := _USER_INFO.search(launch.source):
        variable = _VARIABLE.fullmatch(login[1])
        if variable is None:
            yield "launch.source: expected no password in it; write ${NAME} and add NAME to launch.secrets"
        elif variable[1] not in launch.secrets:
            yield f"launch.source: expected {variable[1]} among launch.secrets"
    elif _QUERY_SECRET.search(launch.source):
        yield "launch.source: expected no secret behind the ?; write ${NAME}@ in front of the host, in launch.secrets"
    if data.paths:
        yield f"data.paths = {list(data.paths)}: expected none, a job has no files of this machine; use data.dataset"
    if data.dataset is not None and Path(data.dataset).exists():
        yield f"data.dataset = {data.dataset!r}: expected a dataset on the hub, a job has no folder of this machine"
    if data.tokenizer not in TOKENIZER_SIZES and Path(data.tokenizer).exists():
        yield f"data.tokenizer = {data.tokenizer!r}: expected a path in the image, a job has no file of this machine"
    if config.training.num_nodes > 1:
        yield f"training.num_nodes = {config.training.num_nodes}: expected 1, a job is one machine"


def _script(config: SEMConfig) -> str:
    """One line of shell. Everything a user wrote is in the environment or quoted."""
    tools = [("c++", "g++")]
    if (config.launch.source or "").startswith("git+"):
        tools.append(("git", "git"))
    training = config.training
    python = "python -m"
    if training.engine == "loop" and training.devices > 1:
        python = f"torchrun --standalone --nproc-per-node={training.devices} -m"
    keep = f"python -m sem.hub {shlex.quote(str(config.launch.hub_repo))} {shlex.quote(training.output_dir)}"
    return " && ".join(
        [
            *(_INSTALL_TOOL.format(tool=tool, package=package) for tool, package in tools),
            """printf '%s\\n' "$SEM_REQUIREMENT" > requirements.txt""",
            "pip install -r requirements.txt",
            """printf '%s\\n' "$SEM_CONFIG" > job.yaml""",
            f"exec {keep} -- {python} sem train --config job.yaml --resume auto",
        ]
    )
