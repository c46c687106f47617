"""``sem generate``: continue a prompt with a trained model."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from argparse import Namespace

    from sem.command_line import Parser

HELP = "continue a prompt with a trained model"
SETTINGS = {
    "prompt": "prompt",
    "length": "max_new_tokens",
    "temperature": "temperature",
    "top_k": "top_k",
    "top_p": "top_p",
    "min_p": "min_p",
    "typical_p": "typical_p",
    "repetition_penalty": "repetition_penalty",
    "seed": "seed",
}
"""Options, and the names of the same settings in the section ``generation``."""


def add_arguments(parser: Parser) -> None:
    """The checkpoint, where to compute, and a short form of each setting of ``generation``."""
    from sem.config_sections import GenerationConfig
    from sem.settings import setting_infos

    help = {info.name: info.help for info in setting_infos(GenerationConfig)}
    parser.add_argument("checkpoint", help="a checkpoint, or a run's folder for its newest")
    for option, name in SETTINGS.items():
        parser.add_argument(f"--{option}", type=str, help=f"{help[name]}; default: as in the run's configuration")
    parser.add_argument("--device", default="auto", help="where to compute")
    parser.add_argument("--threads", type=int, help="CPU threads; default: torch's own choice")


def run(options: Namespace) -> int:
    """Print the prompt and its continuation as it is drawn; Ctrl-C ends the text, with status 0."""
    from sem.generation import generate_text
    from sem.training.trained_model import open_trained_model

    overrides = [f"training.device={options.device}"]
    for option, name in SETTINGS.items():
        if (value := getattr(options, option)) is not None:
            overrides.append(f"generation.{name}={value}")
    trained = open_trained_model(options.checkpoint, overrides, num_threads=options.threads)
    if trained.note is not None:
        print(trained.note, file=sys.stderr)
    settings = trained.config.generation
    pieces = generate_text(trained.model, trained.tokenizer, settings)
    try:
        print(settings.prompt, end="", flush=True)
        for piece in pieces:
            print(piece, end="", flush=True)
    except KeyboardInterrupt:
        pass  # the text so far is what was asked for
    print()
    return 0
