"""What a client may ask for and what it is answered, in the shapes of OpenAI's completions.

A request is checked in full before anything is drawn; what is wrong is one sentence that names the field. The ranges
are those of the section ``generation``, below the server's own limits.
"""

from __future__ import annotations

import dataclasses
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sem.config_sections import GenerationConfig
from sem.settings import SettingInfo, setting_infos, shorten, unknown_key

FIELDS = {
    "max_tokens": "max_new_tokens",
    "temperature": "temperature",
    "top_p": "top_p",
    "top_k": "top_k",
    "min_p": "min_p",
    "typical_p": "typical_p",
    "repetition_penalty": "repetition_penalty",
    "seed": "seed",
}
"""Fields of a request, and the names of the same settings in the section ``generation``."""
WITHOUT_EFFECT: dict[str, Any] = {
    "n": 1,
    "best_of": 1,
    "echo": False,
    "logprobs": None,
    "suffix": None,
    "presence_penalty": 0,
    "frequency_penalty": 0,
    "logit_bias": {},
}
"""Fields that clients send though nothing here does what they say, and the one value beside null that is taken."""
OTHERS = ("model", "prompt", "stop", "stream", "stream_options", "user")
MOST_STOPS, LONGEST_STOP = 4, 256


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What a server grants.

    Attributes:
        prompt_tokens: most tokens of a prompt.
        new_tokens: most tokens of an answer.
        concurrent: answers that are drawn at the same time, token by token in turn.
        waiting: requests that may wait until one of those is done; others are turned away.
    """

    prompt_tokens: int = 8192
    new_tokens: int = 4096
    concurrent: int = 4
    waiting: int = 16

    @property
    def body_bytes(self) -> int:
        """Most bytes of a request: enough for any prompt within the limit, each byte written as an escape."""
        return 65536 + 64 * self.prompt_tokens


class RequestError(Exception):
    """What a request cannot have, in OpenAI's terms.

    Args:
        message: one sentence.
        status: of HTTP.
        param: the field at fault.
        kind: ``type`` in the answer.
        code: ``code`` in the answer.
        headers: of the answer.
    """

    def __init__(
        self,
        message: str,
        *,
        status: int = 400,
        param: str | None = None,
        kind: str = "invalid_request_error",
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.param = param
        self.kind = kind
        self.code = code
        self.headers = dict(headers or {})

    @property
    def body(self) -> dict[str, Any]:
        """The answer."""
        return {"error": {"message": str(self), "type": self.kind, "param": self.param, "code": self.code}}


@dataclass(frozen=True, kw_only=True)
class Request:
    """A request that can be answered.

    Attributes:
        settings: how to draw, the prompt included.
        stops: texts that end the answer, and are not part of it.
        stream: whether to send pieces as they are drawn.
        usage: whether a stream ends with the counts of tokens.
    """

    settings: GenerationConfig
    stops: tuple[str, ...] = ()
    stream: bool = False
    usage: bool = False


def read_request(values: Any, *, model: str, defaults: GenerationConfig, limits: Limits) -> Request:
    """The request that the JSON ``values`` are.

    Args:
        values: a mapping, or whatever a client sent in its place.
        model: the name of the model that is served.
        defaults: of the run, for what a request leaves out; a seed that is left out is drawn anew.
        limits: of the server.

    Raises:
        RequestError: a field is unknown, of another type, or out of its range.

    Example:
        >>> request = read_request(
        ...     {"prompt": "a", "max_tokens": 3}, model="m", defaults=GenerationConfig(), limits=Limits()
        ... )
        >>> request.settings.prompt, request.settings.max_new_tokens
        ('a', 3)
    """
    if not isinstance(values, dict):
        raise RequestError(f"expected a JSON object, got {shorten(values)}")
    known = (*OTHERS, *FIELDS, *WITHOUT_EFFECT)
    for name in values:
        if name not in known:
            shown = shorten(name)[1:-1]
            raise RequestError(unknown_key(shown, None, known), param=shown)
    for name, value in WITHOUT_EFFECT.items():
        if values.get(name) is not None and values[name] != value:
            raise _wrong(name, values[name], f"{_json(value)}, no other value is supported")
    asked = values.get("model")
    if asked not in (None, model):
        message = f"model = {shorten(asked)}: expected {model!r}, the one that is served"
        raise RequestError(message, status=404, param="model", code="model_not_found")
    stream = _flag(values, "stream")
    return Request(
        settings=_settings(values, defaults, limits),
        stops=_stops(values.get("stop")),
        stream=stream,
        usage=_usage(values.get("stream_options"), stream),
    )


def _settings(values: Mapping[str, Any], defaults: GenerationConfig, limits: Limits) -> GenerationConfig:
    prompt = values.get("prompt")
    if not isinstance(prompt, str):
        raise _wrong("prompt", prompt, "one text")
    infos = {info.name: info for info in setting_infos(GenerationConfig)}
    most = min(defaults.max_new_tokens, limits.new_tokens)
    drawn: dict[str, Any] = {"prompt": prompt, "max_new_tokens": most, "seed": secrets.randbits(32)}
    for name, setting in FIELDS.items():
        if (value := values.get(name)) is None:
            continue
        info = _renamed(infos[setting], name, limits.new_tokens if name == "max_tokens" else None)
        try:
            if isinstance(value, str):  # which a file of settings may write for a number
                raise ValueError(f"{name} = {shorten(value)}: expected {info.expected}")
            drawn[setting] = info.convert(value)
        except ValueError as error:
            raise RequestError(str(error), param=name) from None
    return dataclasses.replace(defaults, **drawn)


def _renamed(info: SettingInfo, name: str, most: int | None) -> SettingInfo:
    """``info`` under a request's name, and with an upper limit."""
    metadata = info.metadata if most is None else {**info.metadata, "le": most}
    return dataclasses.replace(info, key=name, metadata=metadata)


def _stops(value: Any) -> tuple[str, ...]:
    if value is None:
        return ()
    stops = [value] if isinstance(value, str) else value
    fits = isinstance(stops, list) and len(stops) <= MOST_STOPS
    if not (fits and all(isinstance(stop, str) and 0 < len(stop) <= LONGEST_STOP for stop in stops)):
        raise _wrong("stop", value, f"a text or up to {MOST_STOPS} of them, of 1 to {LONGEST_STOP} characters each")
    return tuple(stops)


def _usage(value: Any, stream: bool) -> bool:
    if value is None:
        return False
    if not stream or not isinstance(value, dict) or set(value) - {"include_usage"}:
        raise _wrong("stream_options", value, "{'include_usage': true or false}, with stream = true")
    return _flag(value, "include_usage")


def _flag(values: Mapping[str, Any], name: str) -> bool:
    value = values.get(name)
    if not isinstance(value, (bool, type(None))):
        raise _wrong(name, value, "true or false")
    return bool(value)


def _wrong(name: str, value: Any, expected: str) -> RequestError:
    return RequestError(f"{name} = {shorten(value)}: expected {expected}", param=name)


def _json(value: Any) -> str:
    return "null" if value is None else str(value).lower()


@dataclass(frozen=True)
class Reply:
    """What answers have in common.

    Attributes:
        id: of this answer.
        model: the name of the model.
        created: seconds since 1970.
        prompt_tokens: how many tokens the prompt has.
    """

    id: str
    model: str
    created: int
    prompt_tokens: int

    def body(
        self, text: str, finish_reason: str | None, usage: int | None = None, *, choice: bool = True
    ) -> dict[str, Any]:
        """An answer, or a piece of one.

        Args:
            text: new text.
            finish_reason: ``stop`` or ``length``; None for a piece that is not the last.
            usage: how many tokens were drawn; None leaves the counts out.
            choice: False for the piece behind the last one, which has nothing but the counts.
        """
        choices = [{"index": 0, "text": text, "logprobs": None, "finish_reason": finish_reason}]
        body: dict[str, Any] = {
            "id": self.id,
            "object": "text_completion",
            "created": self.created,
            "model": self.model,
            "choices": choices if choice else [],
        }
        if usage is not None:
            body["usage"] = {
                "prompt_tokens": self.prompt_tokens,
                "completion_tokens": usage,
                "total_tokens": self.prompt_tokens + usage,
            }
        return body
