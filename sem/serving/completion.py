"""One text that is being drawn: its tokens, what of it can be read, and where it ends."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from sem.config_sections import GenerationConfig
from sem.data import Tokenizer
from sem.generation import generate_tokens, readable
from sem.model import DecodingState, SEMModel


@dataclass(frozen=True)
class Progress:
    """What became of a text since it was last told of.

    Attributes:
        text: what can be sent on.
        tokens: how many were drawn in all.
        finish_reason: ``stop`` (the model ended the document, or a stop came), ``length``, or None: more is to come.
        error: what ended it in place of a reason.
    """

    text: str
    tokens: int
    finish_reason: str | None = None
    error: Exception | None = None

    @property
    def last(self) -> bool:
        """Whether nothing comes behind it."""
        return self.finish_reason is not None or self.error is not None


class Completion:
    """A text on its way to one client. It moves when :meth:`advance` is called, by one thread at a time.

    Args:
        model: in evaluation mode.
        tokenizer: the model's.
        prompt: tokens to continue.
        settings: how to draw.
        stops: texts that end it, and are not told.
        start: ``model.init_state(1)``, shared by all texts.
        tell: receives every :class:`Progress`, on the thread that advances, the last one once.

    Raises:
        ImportError: a setting needs a library that is not there.
    """

    def __init__(
        self,
        model: SEMModel,
        tokenizer: Tokenizer,
        prompt: Sequence[int],
        settings: GenerationConfig,
        stops: Sequence[str],
        start: DecodingState,
        tell: Callable[[Progress], None],
    ) -> None:
        self._most = settings.max_new_tokens
        self._tell = tell
        self._stops = StopFilter(stops)
        self._tokens = generate_tokens(model, prompt, settings, stop_token=tokenizer.eos, start=start)
        self._pieces = readable(self._counted(), tokenizer)
        self._count = 0
        self._cancelled = False

    def cancel(self) -> None:
        """Nobody waits for it any more: the next :meth:`advance` ends it. From any thread."""
        self._cancelled = True

    def advance(self) -> bool:
        """Draw until there is text to send on; whether there may be more.

        A character takes up to four tokens, and a stop's beginning is kept back until it is known not to be one.
        """
        try:
            if self._cancelled:
                return False
            progress = self._next()
            if progress.text or progress.last:
                self._tell(progress)
        except Exception as error:  # whatever it is, it ends this text and not the others
            self.fail(error)
            return False
        return not progress.last

    def fail(self, error: Exception) -> None:
        """Tell that it ends by ``error``."""
        try:
            self._tell(Progress("", self._count, error=error))
        except Exception:  # who waited for it has gone, and its event loop with it
            self._cancelled = True

    def close(self) -> None:
        """Let go of the model's state."""
        self._tokens.close()  # type: ignore[attr-defined]  # a generator

    def _next(self) -> Progress:
        piece = next(self._pieces, None)
        if piece is not None:
            text, stopped = self._stops.feed(piece)
            return Progress(text, self._count, "stop" if stopped else None)
        reason = "length" if self._count == self._most else "stop"
        return Progress(self._stops.rest(), self._count, reason)

    def _counted(self) -> Iterator[int]:
        for token in self._tokens:
            self._count += 1
            yield token


class StopFilter:
    """Text in pieces, up to the first of the ``stops`` in it.

    Example:
        >>> stops = StopFilter(["END"])
        >>> stops.feed("one E"), stops.feed("N two"), stops.feed(" END three")
        (('one ', False), ('EN two', False), (' ', True))
    """

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = tuple(stops)
        self._held = ""

    def feed(self, piece: str) -> tuple[str, bool]:
        """What can be sent on now that ``piece`` came, and whether a stop did; nothing is to be fed after that."""
        text = self._held + piece
        found = [place for stop in self._stops if (place := text.find(stop)) >= 0]
        if found:
            self._held = ""
            return text[: min(found)], True
        held = max((_overlap(text, stop) for stop in self._stops), default=0)
        self._held = text[len(text) - held :]
        return text[: len(text) - held], False

    def rest(self) -> str:
        """What was kept back, now that no more comes."""
        rest, self._held = self._held, ""
        return rest


def _overlap(text: str, stop: str) -> int:
    """How many characters at the end of ``text`` begin ``stop``."""
    return next((n for n in range(min(len(text), len(stop) - 1), 0, -1) if text.endswith(stop[:n])), 0)
