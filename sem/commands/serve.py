"""``sem serve``: a trained model behind HTTP, with a page to type into."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from argparse import Namespace

    from sem.command_line import Parser

HELP = "answer prompts over HTTP with a trained model, and on a page"
HOST, PORT = "127.0.0.1", 8000
LIMITS = {
    "max_prompt": ("prompt_tokens", "most tokens of a prompt", 1),
    "max_tokens": ("new_tokens", "most tokens of an answer", 1),
    "concurrent": ("concurrent", "answers drawn at the same time", 1),
    "waiting": ("waiting", "requests that may wait for that, before others are turned away", 0),
}
"""Options, the limits that they set, their help, and the least that makes sense."""


def add_arguments(parser: Parser) -> None:
    """Declare the run, where to listen, the limits, and where to compute."""
    from sem.serving.protocol import Limits

    default = Limits()
    parser.add_argument("run", help="a run's folder for its newest checkpoint, or a checkpoint")
    parser.add_argument("--host", default=HOST, help=f"address to listen on; default: {HOST}, this machine alone")
    parser.add_argument("--port", type=int, default=PORT, help=f"port to listen on, 0 for any; default: {PORT}")
    for option, (name, help, _) in LIMITS.items():
        given = getattr(default, name)
        parser.add_argument(f"--{option}", type=int, metavar="N", default=given, help=f"{help}; default: {given}")
    parser.add_argument("--device", default="auto", help="where to compute")
    parser.add_argument("--threads", type=int, help="CPU threads; default: torch's own choice")


def run(options: Namespace) -> int:
    """Serve until Ctrl-C or SIGTERM, with status 0."""
    from sem.generation import token_filter
    from sem.serving.app import Served
    from sem.serving.protocol import Limits
    from sem.serving.server import Server, is_local, listening_socket
    from sem.signals import stop_on_signals
    from sem.training.trained_model import open_trained_model

    if not 0 <= options.port <= 65535:
        raise ValueError(f"--port {options.port}: expected 0 to 65535")
    for option, (_, _, least) in LIMITS.items():
        if (value := getattr(options, option)) < least:
            raise ValueError(f"--{option} {value}: expected an integer >= {least}")
    limits = Limits(**{name: getattr(options, option) for option, (name, _, _) in LIMITS.items()})
    listener = listening_socket(options.host, options.port)  # now, not when the model is there
    with listener, stop_on_signals() as stop:
        trained = open_trained_model(options.run, [f"training.device={options.device}"], num_threads=options.threads)
        token_filter(trained.config.generation)  # the run's own settings must work
        if trained.note is not None:
            print(trained.note, file=sys.stderr)
        served = Served(
            name=trained.folder.resolve().name,
            model=trained.model,
            tokenizer=trained.tokenizer,
            defaults=trained.config.generation,
            created=int(trained.checkpoint.stat().st_mtime),
            limits=limits,
        )
        if not is_local(listener):
            message = (
                f"--host {options.host}: everyone who reaches this machine can use the model, no password is asked"
            )
            print(f"sem: {message}", file=sys.stderr)
        server = Server(served, listener)
        step = "" if trained.step is None else f", step {trained.step}"
        print(f"{served.name}{step}: {server.address} (Ctrl-C ends it)", flush=True)
        while not stop and server.wait(0.2):
            pass
        server.stop()
    if not stop:
        raise RuntimeError("the server stopped by itself; what came before says why")
    print(f"\nstopped by {stop.signal_name}")
    return 0
