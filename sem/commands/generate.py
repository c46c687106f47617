"""``sem generate``: continue a prompt with a trained model."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jsonargparse import ArgumentParser, Namespace

HELP = "continue a prompt with a trained model"


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("checkpoint", help="a checkpoint, or a run's folder for its newest")
    for name, help in (
        ("prompt", "text to continue"),
        ("length", "most tokens to generate"),
        ("temperature", "sharpness of the draw; 0: always the likeliest token"),
        ("top_k", "draw from the k likeliest tokens; 0: off"),
        ("top_p", "draw from the smallest set of this probability"),
        ("seed", "seed of the draw"),
    ):
        parser.add_argument(f"--{name}", type=str, help=f"{help}; default: as in the run's configuration")
    parser.add_argument("--device", default="auto", help="where to compute")
    parser.add_argument("--threads", type=int, help="CPU threads; default: torch's own choice")


def run(options: Namespace) -> int:
    import torch

    from sem.data import ByteTokenizer
    from sem.generation import generate_text
    from sem.model import SEMModel
    from sem.training.run_folder import open_checkpoint, saved_config
    from sem.training.trainer import resolve_device

    names = {"length": "max_new_tokens"}
    overrides = [f"training.device={options.device}"]
    for name in ("prompt", "length", "temperature", "top_k", "top_p", "seed"):
        if options[name] is not None:
            overrides.append(f"generation.{names.get(name, name)}={options[name]}")
    _, content = open_checkpoint(options.checkpoint)
    config = saved_config(content, overrides)
    device = resolve_device(config.training.device)
    if options.threads is not None:
        torch.set_num_threads(options.threads)
    model = SEMModel(config)
    model.load_state_dict(content["model"])
    settings = config.generation
    print(settings.prompt, end="", flush=True)
    limit = config.model.max_seq_length
    for piece in generate_text(model.to(device), ByteTokenizer(), settings, max_seq_length=limit):
        print(piece, end="", flush=True)
    print()
    return 0
