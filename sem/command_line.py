"""What the commands of ``sem`` share: how they are found, read their options, and end.

An error is one sentence, raised as ``ValueError`` and printed once, by :func:`guarded`.
"""

from __future__ import annotations

import argparse
import contextlib
import difflib
import io
import os
import re
import sys
import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any, NoReturn

from sem.masking import masking
from sem.settings import unknown_key

FAILED, WRONG_USE, STOPPED = 1, 2, 130
_MOST_IN_USAGE = 12
_HELP_WORDS = ("-h", "--help", "-help")
_NEGATIVE = re.compile(r"(-(\d+\.?\d*|\.\d+)(e[+-]?\d+)?|-inf)$", re.IGNORECASE)
_VALUE_ERROR = re.compile(r"argument (?P<option>\S+): invalid (?P<kind>int|float) value: (?P<value>.*)")
_CHOICE_ERROR = re.compile(
    r"argument (?P<option>\S+): invalid choice: (?P<value>.*) \(choose from (?P<known>.*)\)", re.S
)
_KINDS = {"int": "an integer", "float": "a number"}


class Parser(argparse.ArgumentParser):
    """argparse's parser, except that what is wrong is one sentence in a ``ValueError``, with the nearest name.

    Example:
        >>> parser = Parser("sem walk", "Take steps.")
        >>> _ = parser.add_argument("--steps", type=int)
        >>> parser.parse(["--steps", "3"]).steps
        3
        >>> parser.parse(["--stepz", "3"])
        Traceback (most recent call last):
        ValueError: --stepz: unknown option; did you mean --steps?
    """

    def __init__(self, prog: str, description: str) -> None:
        super().__init__(prog=prog, description=description, allow_abbrev=False)
        self._negative_number_matcher = _NEGATIVE  # argparse's own knows no exponents

    def parse(self, arguments: Sequence[str]) -> argparse.Namespace:
        """The options that ``arguments`` give.

        Raises:
            ValueError: an option that is not there, a value that does not fit, or one that is missing.
        """
        self._check_names(arguments)  # first: argparse would rather tell what is missing because of a misspelt name
        options, rest = self.parse_known_args(arguments)
        if rest:
            raise ValueError(f"{rest[0]}: expected no such argument; see {self.prog} --help")
        return options

    def error(self, message: str) -> NoReturn:
        """Argparse's complaint ``message`` in the words of sem's own errors.

        Raises:
            ValueError: always.
        """
        if found := _VALUE_ERROR.fullmatch(message):
            message = f"{found['option']} = {found['value']}: expected {_KINDS[found['kind']]}"
        elif found := _CHOICE_ERROR.fullmatch(message):
            known = found["known"].replace("'", "")
            near = difflib.get_close_matches(found["value"].strip("'"), known.split(", "), n=1)
            hint = f"; did you mean {near[0]}?" if near else ""
            message = f"{found['option']} = {found['value']}: expected one of {known}{hint}"
        else:
            message = message.removeprefix("argument ")
        raise ValueError(f"{self.prog}: {message}; see {self.prog} --help")

    def format_help(self) -> str:
        """Argparse's help; the line of usage lists no options where there are many."""
        if self.usage is None and len(self._actions) > _MOST_IN_USAGE:
            last = "".join(f" {self._shown(action)}" for action in self._actions if not action.option_strings)
            self.usage = f"{self.prog} [OPTION ...]{last}".replace("%", "%%")
        return super().format_help()

    def print_help(self, file: Any = None) -> None:
        """Print the help to ``file``, by default standard output; a closed pipe is an error here, which :func:`guarded`
        takes."""
        print(self.format_help(), end="", file=file)  # argparse's own hides that nobody reads it

    @staticmethod
    def _shown(action: argparse.Action) -> str:
        name = str(action.metavar or action.dest)
        return f"[{name}]" if action.nargs == "?" else name

    def _check_names(self, arguments: Iterable[str]) -> None:
        known = {option: action for action in self._actions for option in action.option_strings}
        problems, before = [], ""
        for argument in arguments:
            if argument == "--":
                break
            name, equals, value = argument.partition("=")
            taken_for_option = name.startswith("-") and name != "-" and " " not in name
            if taken_for_option and name not in known and not _NEGATIVE.fullmatch(argument):
                if before in known and known[before].nargs is None and not argument.startswith("--"):
                    problems.append(f"{before}: a value that begins with - goes behind =: {before}={argument}")
                else:
                    problems.append(self._unknown(name, value if equals else None, list(known)))
            before = argument
        if problems:
            raise ValueError("\n".join(problems))

    def _unknown(self, name: str, value: str | None, known: Sequence[str]) -> str:
        settings = [option.removeprefix("--") for option in known if "." in option]
        if "." in name and settings:
            return unknown_key(name.removeprefix("--"), value, settings)
        near = [option for option in known if option.rpartition(".")[2] == name.lstrip("-")]
        near = near or difflib.get_close_matches(name, known, n=1)
        hint = f"did you mean {' or '.join(near)}?" if near else f"see {self.prog} --help"
        return f"{name}: unknown option; {hint}"


def _nothing(parser: Parser) -> None:
    """For commands without options."""


@dataclass(frozen=True, kw_only=True)
class Command:
    """A command, or a group of them.

    Attributes:
        help: one line.
        add_arguments: puts its options on a parser; loads no torch, so that ``--help`` answers at once.
        run: does what the parsed options say and returns the exit status; None for a group that does nothing itself.
        raw: for a command whose flags no parser reads: does what its words say, ``--help`` included.
        subcommands: by name.
        notes: what a group says of itself below the list of its commands.
    """

    help: str
    add_arguments: Callable[[Parser], None] = _nothing
    run: Callable[[argparse.Namespace], int] | None = None
    raw: Callable[[Sequence[str]], int] | None = None
    subcommands: Mapping[str, Command] = field(default_factory=dict)
    notes: str = ""


def command_of(module: ModuleType) -> Command:
    """The command that a module with ``HELP``, ``add_arguments(parser)`` and ``run(options)`` is."""
    return Command(help=module.HELP, add_arguments=module.add_arguments, run=module.run)


def perform(words: Sequence[str], command: Command, arguments: Sequence[str]) -> int:
    """Run ``command``, which is called ``words``, with ``arguments``, and return its exit status.

    Raises:
        ValueError: wrong arguments.
        SystemExit: with status 0, after ``--help``.
    """
    if command.raw is not None:
        return command.raw(arguments)
    word = next(iter(arguments), "")
    if word in command.subcommands:
        return perform((*words, word), command.subcommands[word], arguments[1:])
    name = " ".join(words)
    if command.run is None:
        if word in ("", *_HELP_WORDS):
            print(overview(name, command), file=sys.stdout if word else sys.stderr)
            return 0 if word else WRONG_USE
        near = difflib.get_close_matches(word, command.subcommands, n=1)
        hint = f"did you mean {near[0]}?" if near else f"expected one of {', '.join(command.subcommands)}"
        raise ValueError(f"{name} {word}: no such {_kind(words)}; {hint}")
    return command.run(parser_of(name, command).parse(arguments))


def parser_of(name: str, command: Command) -> Parser:
    """The parser of a command that is no group."""
    parser = Parser(name, f"{command.help[0].upper()}{command.help[1:]}.".replace("%", "%%"))
    command.add_arguments(parser)
    if command.subcommands:
        known = "; ".join(f"{name} {word}: {other.help}" for word, other in command.subcommands.items())
        parser.epilog = f"Commands with a --help of their own: {known}.".replace("%", "%%")
    return parser


def overview(name: str, command: Command) -> str:
    """What a group says of its commands."""
    kind = _kind(name.split()).upper()
    width = max(map(len, command.subcommands))
    lines = [f"  {word:<{width}}  {other.help}" for word, other in command.subcommands.items()]
    return "\n".join(
        [f"usage: {name} {kind} ...; {name} {kind} --help says more", "", *lines, *filter(None, [command.notes])]
    )


def _kind(words: Sequence[str]) -> str:
    return "command" if len(words) == 1 else "subcommand"


def completed(words: Sequence[str], command: Command) -> None:
    """Answer a shell that asks argcomplete for what may come next, and end the process; nothing where none asks."""
    if "_ARGCOMPLETE" not in os.environ:
        return
    import argcomplete

    def tree(parser: argparse.ArgumentParser, command: Command) -> None:
        command.add_arguments(parser)  # type: ignore[arg-type]
        if command.subcommands:
            commands = parser.add_subparsers(parser_class=argparse.ArgumentParser)
            for word, other in command.subcommands.items():
                tree(commands.add_parser(word, help=other.help.replace("%", "%%")), other)

    root = argparse.ArgumentParser(prog=" ".join(words))
    tree(root, command)
    argcomplete.autocomplete(root)


def guarded(run: Callable[[], int], *, debug: bool = False) -> int:
    """The exit status of ``run``, whose errors are printed in one line, and whose output hides secrets.

    A reader who has had enough (``| head``) ends it in silence, with status 1; Ctrl-C ends it with a line and status
    130; letters that the output cannot encode are spelled out.

    Args:
        debug: let errors pass, with their traceback.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    with masking():
        try:
            try:
                return run()
            finally:
                if sys.stdout is not None:
                    sys.stdout.flush()  # here, where a closed pipe is no surprise
        except BrokenPipeError:
            _discard_output()
            return FAILED
        except KeyboardInterrupt:
            print("\nsem: stopped by Ctrl-C", file=sys.stderr)
            return STOPPED
        except Exception as error:
            if debug:
                raise
            return _fail(error)
        finally:
            # Where Ctrl-C passed through code that was given as text (dataclasses', torch's), the interpreter would end
            # by the signal, whatever status is returned; the next such code makes it forget that.
            exec("")


def _discard_output() -> None:
    """What is still in the stream's buffer would be written, and fail once more, when the interpreter ends."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
            continue
        with contextlib.suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _fail(error: Exception) -> int:
    """Say in one line what went wrong; of a bug, all that a report needs."""
    text = str(error)
    if isinstance(error, OSError):
        known = error.filename is not None and error.strerror
        text = f"{error.filename}: {error.strerror}" if known else " ".join(text.split("\n"))
    if isinstance(error, ValueError):
        print(f"sem: {text}", file=sys.stderr)
        return WRONG_USE
    if isinstance(error, MemoryError):
        print(f"sem: not enough memory{f' ({text})' if text else ''}", file=sys.stderr)
    elif isinstance(error, (RuntimeError, ArithmeticError, OSError, ImportError, EOFError)):
        print(f"sem: {text or type(error).__name__}", file=sys.stderr)
    else:
        traceback.print_exception(error)
        print("sem: this is a bug; please report it with the lines above and what sem info prints", file=sys.stderr)
    return FAILED
