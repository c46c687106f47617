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
    import torch

    from sem.data import tokenizer_of
    from sem.generation import generate_text
    from sem.model import SEMModel
    from sem.training.checkpoint import load_parameters
    from sem.training.devices import prepare_for_device, resolve_device
    from sem.training.run_folder import open_checkpoint, run_folder_of, saved_config

    overrides = [f"training.device={options.device}"]
    for option, name in SETTINGS.items():
        if (value := getattr(options, option)) is not None:
            overrides.append(f"generation.{name}={value}")
    path, content = open_checkpoint(options.checkpoint)
    config = saved_config(content, overrides)
    _check_text("generation.prompt", config.generation.prompt)
    tokenizer = tokenizer_of(config, run_folder_of(path))
    device = resolve_device(config.training.device)
    if options.threads is not None:
        torch.set_num_threads(options.threads)
    model = SEMModel(config)
    load_parameters(model, content)
    note = prepare_for_device(model.to(device).eval(), None, device)
    if note is not None:
        print(note, file=sys.stderr)
    pieces = generate_text(model, tokenizer, config.generation)
    try:
        print(config.generation.prompt, end="", flush=True)
        for piece in pieces:
            print(piece, end="", flush=True)
    except KeyboardInterrupt:
        pass  # the text so far is what was asked for
    print()
    return 0


def _check_text(name: str, text: str) -> None:
    """What came as bytes that are no UTF-8 has half surrogates in their place."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        code = ord(text[error.start])
        got = f"the byte 0x{code - 0xDC00:02x}" if code >= 0xDC80 else f"half a surrogate pair, {code:#x},"
        raise ValueError(f"{name}: expected text in UTF-8, got {got} at position {error.start}") from None
