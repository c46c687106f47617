"""Secrets that are known to this process, and streams that do not show them."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

MASK = "********"
_SECRET_NAME = re.compile(r"(^|_)(TOKEN|SECRET|PASSWORD|PASSWD|CREDENTIALS?|API_?KEY|ACCESS_?KEY)(_|$)")
_SHORTEST = 8  # characters: a shorter value would mask ordinary words


_ADDED: set[str] = set()


def add_secrets(values: Iterable[str]) -> None:
    """Let :func:`masked` know more values."""
    _ADDED.update(filter(None, values))


def known_secrets() -> list[str]:
    """The values that were added, and those of environment variables whose names say that they are secret; the longest
    first.

    The token that the hub's library keeps in a file is among them where the library has been loaded.

    Example:
        >>> os.environ["EXAMPLE_TOKEN"] = "not-for-your-eyes"
        >>> "not-for-your-eyes" in known_secrets()
        True
        >>> del os.environ["EXAMPLE_TOKEN"]
    """
    named = {
        value for name, value in os.environ.items() if len(value) >= _SHORTEST and _SECRET_NAME.search(name.upper())
    }
    library = sys.modules.get("huggingface_hub")
    token = library.get_token() if library is not None else None
    return sorted(named | _ADDED | ({token} if token else set()), key=len, reverse=True)


def masked(text: str) -> str:
    """``text`` with every known secret replaced.

    Example:
        >>> add_secrets(["hf_an_example"])
        >>> masked("denied for hf_an_example")
        'denied for ********'
    """
    return _without(known_secrets(), text)


def _without(secrets: Iterable[str], text: str) -> str:
    for value in secrets:
        text = text.replace(value, MASK)
    return text


class MaskingStream:
    """A text stream that shows no known secret; all else is the stream's own.

    What is known is looked up when it is made, when something is added and when the hub's library has been loaded.
    """

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self._known: tuple[int, bool] | None = None
        self._secrets: list[str] = []

    def write(self, text: str) -> int:
        """Write ``text``, the known secrets in it replaced, and return its own length. A secret that is split over two
        calls is not recognised."""
        known = len(_ADDED), "huggingface_hub" in sys.modules
        if known != self._known:
            self._known, self._secrets = known, known_secrets()
        self._stream.write(_without(self._secrets, text))
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        """Write each of ``lines`` as :meth:`write` does."""
        for line in lines:
            self.write(line)

    def __iter__(self) -> Iterator[str]:
        return iter(self._stream)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextmanager
def masking() -> Iterator[None]:
    """Standard output and error without secrets, tracebacks and warnings included."""
    before = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = (MaskingStream(stream) for stream in before)  # type: ignore[assignment]
    try:
        yield
    finally:
        sys.stdout, sys.stderr = before
