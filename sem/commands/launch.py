"""``sem launch``: train on the Hugging Face Hub's rented hardware."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sem.config import add_config_arguments, config_from_arguments

if TYPE_CHECKING:
    from argparse import Namespace

    from sem.command_line import Parser

HELP = "train on rented hardware of the Hugging Face Hub, as the section launch says"


def add_arguments(parser: Parser) -> None:
    """What to do about a run that is there, and every setting of a configuration."""
    parser.add_argument("--dry-run", action="store_true", help="print what would be sent and send nothing")
    parser.add_argument("--follow", action="store_true", help="print the job's log until it ends")
    parser.add_argument("--resume", action="store_true", help="continue the run in launch.hub_repo, if there is one")
    parser.add_argument("--overwrite", action="store_true", help="delete the run in launch.hub_repo first")
    add_config_arguments(parser)


def run(options: Namespace) -> int:
    """Send the job, or print what would be sent. Status 1 for a job that was followed and did not complete."""
    from sem.hub.job import build_job
    from sem.hub.launch import launch

    if options.overwrite and options.resume:
        raise ValueError("--overwrite: expected no --resume beside it")
    config = config_from_arguments(options)
    job = build_job(config)
    if options.dry_run:
        print(job.describe(), end="")
        return 0
    repo = str(config.launch.hub_repo)
    return launch(job, repo, resume=options.resume, overwrite=options.overwrite, follow=options.follow)
