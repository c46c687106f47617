"""``sem tokenizer train``: learn a vocabulary from the configured text."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from sem.command_line import Command, Parser
from sem.config import SEMConfig, add_config_arguments, config_from_arguments

if TYPE_CHECKING:
    from argparse import Namespace


def add_arguments(parser: Parser) -> None:
    """The file to write, how much text to read, and every setting of a configuration."""
    parser.add_argument("--vocab_size", type=int, metavar="N", help="number of token ids; default: model.vocab_size")
    parser.add_argument("--output", default="tokenizer.json", metavar="FILE", help="the file to write (%(default)s)")
    documents = "most documents of the training text to read (%(default)s)"
    parser.add_argument("--documents", type=int, default=100_000, metavar="N", help=documents)
    add_config_arguments(parser)


def run(options: Namespace) -> int:
    """Learn the vocabulary from documents that are not held out, and write it."""
    from sem.data.file_tokenizer import train_tokenizer

    if options.documents < 1:
        raise ValueError(f"--documents {options.documents}: expected at least 1")
    config = config_from_arguments(options)
    vocab_size = config.model.vocab_size if options.vocab_size is None else options.vocab_size
    terminal = sys.stderr.isatty()
    count = 0

    def counted() -> Iterator[str]:
        nonlocal count
        for text in _training_texts(config, options.documents):
            count += 1
            if terminal and count % 100 == 0:
                print(f"\rread {count} documents", end="", file=sys.stderr, flush=True)
            yield text

    tokenizer = train_tokenizer(counted(), vocab_size, show_progress=terminal)
    tokenizer.save(options.output)
    if tokenizer.vocab_size < vocab_size:
        print(f"the text gives only {tokenizer.vocab_size} of {vocab_size} ids; more text gives more")
    print(f"{options.output}: {tokenizer.vocab_size} ids from {count} documents; use it with data.tokenizer")
    return 0


def _training_texts(config: SEMConfig, limit: int) -> Iterable[str]:
    """The first documents that are not held out."""
    from sem.data import load_corpus, open_source
    from sem.data.streaming import iterate_texts

    data = config.data
    if data.dataset is not None:
        return iterate_texts(open_source(data), data, limit, held_out=False)
    documents = load_corpus(data.paths, corpus=data.corpus, validation_share=data.validation_share).train
    return (documents[index].tobytes().decode(errors="replace") for index in range(min(limit, len(documents))))


COMMAND = Command(
    help="train a tokenizer on the configured text",
    subcommands={
        "train": Command(
            help="learn a byte-level byte-pair vocabulary; equal text gives an equal file",
            add_arguments=add_arguments,
            run=run,
        )
    },
)
