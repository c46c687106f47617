"""Sending a job to the hub and following it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sem.hub.job import Job, read_secrets
from sem.hub.mirror import is_checkpoint
from sem.huggingface import HubError, answered, hub_errors, huggingface_hub
from sem.masking import masked

if TYPE_CHECKING:
    from huggingface_hub import JobInfo

FAILED = 1


def launch(job: Job, hub_repo: str, *, resume: bool = False, overwrite: bool = False, follow: bool = False) -> int:
    """Send ``job``, say where it is, and with ``follow`` print its log until it ends.

    Args:
        hub_repo: the repository that keeps the job's run.
        resume: continue the run that ``hub_repo`` holds, if it holds one.
        overwrite: delete that run first.

    Returns:
        The exit status: 1 for a followed job that did not complete, else 0.

    Raises:
        ValueError: a secret is not set, or ``hub_repo`` holds a run and neither ``resume`` nor ``overwrite`` is given.
        HubError: nobody is logged in, or the hub refused or failed.
    """
    library = huggingface_hub()
    if library.get_token() is None:
        raise HubError(
            "not logged in to the Hugging Face Hub: run hf auth login, or set HF_TOKEN to a token from "
            "https://huggingface.co/settings/tokens"
        )
    secrets = read_secrets(job.secrets)
    _prepare_repository(hub_repo, resume, overwrite)
    with hub_errors("the job was not started"):
        started = answered(lambda: library.HfApi().run_job(**job.to_mapping(secrets)))
    print(f"job {started.id}: {started.url}", flush=True)
    print(f"checkpoints: {library.constants.ENDPOINT}/{hub_repo}", flush=True)
    return _follow(started) if follow else 0


def _prepare_repository(repo: str, resume: bool, overwrite: bool) -> None:
    """See to it that the job finds in ``repo`` what it is meant to continue, and nothing else."""
    from huggingface_hub.errors import RepositoryNotFoundError

    api = huggingface_hub().HfApi()
    with hub_errors(f"launch.hub_repo = {repo!r}"):
        try:
            files = answered(lambda: api.model_info(repo)).siblings or ()
            held = [file.rfilename for file in files if is_checkpoint(file.rfilename)]
        except RepositoryNotFoundError as error:
            if error.response.status_code == 404:  # the job makes it
                return
            raise
        if held and overwrite:
            answered(lambda: api.delete_files(repo, held, commit_message="Delete the run, a new one begins"))
    if held and not (resume or overwrite):
        raise ValueError(
            f"launch.hub_repo = {repo!r}: expected a repository without a run, this one holds one; continue it with "
            "--resume, delete it with --overwrite or name another one"
        )


def _follow(job: JobInfo) -> int:
    api, where = huggingface_hub().HfApi(), {"job_id": job.id, "namespace": job.owner.name}
    command = f"--namespace {job.owner.name} {job.id}"
    try:
        with hub_errors("the job goes on, its log cannot be read"):
            for line in api.fetch_job_logs(**where, follow=True):
                print(masked(line.rstrip("\n")), flush=True)
            status = api.inspect_job(**where).status
    except KeyboardInterrupt:
        print(f"\nthe job goes on; its log: hf jobs logs --follow {command}; end it: hf jobs cancel {command}")
        return 0
    stage = getattr(status.stage, "value", status.stage)
    said = f" ({masked(status.message)})" if status.message else ""
    print(f"job {job.id}: {stage}{said}")
    return 0 if stage == "COMPLETED" else FAILED
