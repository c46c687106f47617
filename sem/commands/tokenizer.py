"""``sem tokenizer train``: learn a vocabulary from the configured text."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from sem.config import SEMConfig, add_config_arguments, config_from_arguments

if TYPE_CHECKING:
    from jsonargparse import ArgumentParser, Namespace

HELP = "train a tokenizer on the configured text"


def add_arguments(parser: ArgumentParser) -> None:
    from jsonargparse import ArgumentParser

    train = ArgumentParser(description="Train a byte-level byte-pair tokenizer; equal text gives an equal file.")
    train.add_argument("--vocab_size", type=int, help="number of token ids; default: model.vocab_size")
    train.add_argument("--output", default="tokenizer.json", help="the file to write")
    train.add_argument("--documents", type=int, default=100_000, help="most documents of the training text to read")
    add_config_arguments(train)
    parser.add_subcommands(dest="action").add_subcommand("train", train, help="learn a vocabulary, write its file")


def run(options: Namespace) -> int:
    from sem.data.file_tokenizer import train_tokenizer

    options = options[options.action]
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
