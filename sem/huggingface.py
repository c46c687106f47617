"""The optional library ``huggingface_hub``, and its failures in words."""

from __future__ import annotations

import importlib
import json
import queue
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any, TypeVar

from sem.extras import how_to_install
from sem.masking import masked

Answer = TypeVar("Answer")
SILENCE = 20.0
"""Seconds without a byte after which the hub counts as lost."""
PATIENCE = 45.0
"""Seconds that whoever sits before a terminal waits for one answer, whatever the library repeats meanwhile."""
_ADVICE = {
    401: "log in again with: hf auth login",
    402: "jobs need credit: https://huggingface.co/settings/billing",
    403: "the token needs the right to write repositories and to run jobs: https://huggingface.co/settings/tokens",
    404: "is the namespace, or the repository, spelled right, and may the token see it?",
}


class HubError(RuntimeError):
    """The hub refused or failed, or nobody is logged in."""


def huggingface_hub() -> ModuleType:
    """The library, new enough to know the flavors of jobs.

    Raises:
        ImportError: it is missing or too old.
    """
    try:
        library = importlib.import_module("huggingface_hub")
        library.JobHardware  # noqa: B018 - the newest of what is used, and the names are loaded lazily
    except (ImportError, AttributeError):
        raise ImportError(f"the hub needs huggingface_hub 1.17 or newer: {how_to_install('hub')}") from None
    # where a call of the library names no time, it would wait for ever
    library.get_session().timeout = SILENCE
    return library


@contextmanager
def hub_errors(doing: str) -> Iterator[None]:
    """Turn what the library raises into one line that says what was being done, without the secrets that are known.

    Raises:
        HubError: with the status, the hub's own words and what to do about it.
    """
    from huggingface_hub.errors import HfHubHTTPError, HTTPError

    try:
        yield
    except HfHubHTTPError as error:
        status = error.response.status_code
        said = error.server_message or error.response.reason_phrase
        advice = "try again later" if status >= 500 else _ADVICE.get(status)
        problem = f"the hub answered {status} ({said})" + (f"; {advice}" if advice else "")
        # not chained: a traceback would show the request's error unmasked
        raise HubError(masked(f"{doing}: {_one_line(problem)}")) from None
    except json.JSONDecodeError as error:
        raise HubError(masked(f"{doing}: the hub's answer is no JSON ({error}); try again later")) from None
    except (HTTPError, OSError) as error:
        problem = f"the hub cannot be reached ({error or type(error).__name__})"
        raise HubError(masked(f"{doing}: {_one_line(problem)}")) from None


def answered(ask: Callable[[], Answer]) -> Answer:
    """What ``ask`` returns or raises, within :data:`PATIENCE`; the library asks a silent hub again and again.

    Raises:
        TimeoutError: there is no answer yet; what was asked goes on in the background until the process ends.
    """
    found: queue.SimpleQueue[tuple[Any, BaseException | None]] = queue.SimpleQueue()

    def asking() -> None:
        try:
            found.put((ask(), None))
        except BaseException as error:
            found.put((None, error))

    threading.Thread(target=asking, daemon=True).start()
    try:
        answer, error = found.get(timeout=PATIENCE)
    except queue.Empty:
        raise TimeoutError(f"no answer within {PATIENCE:g} s; try again later") from None
    if error is not None:
        raise error
    return answer


def _one_line(text: str) -> str:
    return " ".join(text.split())
