"""A server on this machine around any model, its client, and models that say what they are told to."""

from __future__ import annotations

import http.client
import json
import math
import threading
import time
from contextlib import contextmanager

import torch
from torch import nn

from sem.config_sections import GenerationConfig
from sem.data import ByteTokenizer
from sem.serving.app import Served
from sem.serving.protocol import Limits
from sem.serving.server import Server, listening_socket


class Scripted(nn.Module):
    """Says ``script`` again and again, and ends the document behind it if ``ends``; its state is how far it is.

    ``may_step`` holds back every token but the first while it is cleared; ``steps`` counts those that were asked for.
    """

    def __init__(self, script, *, ends=False):
        super().__init__()
        self.anchor = nn.Parameter(torch.zeros(1))
        self.script = [*script, *([ByteTokenizer.eos] if ends else [])]
        self.may_step = threading.Event()
        self.may_step.set()
        self.steps = 0

    def predict(self, position):
        log_probabilities = torch.full((1, ByteTokenizer.vocab_size), -math.inf)
        log_probabilities[0, self.script[position % len(self.script)]] = 0.0
        return log_probabilities

    def init_state(self, batch):
        return 0

    def prefill(self, tokens, state):
        return self.predict(0), 0

    def step(self, token, state):
        assert self.may_step.wait(20)
        self.steps += 1
        return self.predict(state + 1), state + 1


class Client:
    """Speaks HTTP to one server."""

    def __init__(self, server):
        self.port = int(server.address.rpartition(":")[2])
        self.server = server

    def send(self, method, path, body=None, headers=()):
        """The response, of which nothing has been read, and its connection."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        given = dict(headers)
        if body is not None and not isinstance(body, bytes):
            body = json.dumps(body).encode()
        if body is not None:
            given = {"Content-Type": "application/json"} | given
        connection.request(method, path, body, given)
        return connection.getresponse(), connection

    def get(self, path, **headers):
        response, connection = self.send("GET", path, headers=headers)
        with connection_closed(connection):
            return response, response.read().decode()

    def ask(self, body, **headers):
        """Status, answer and headers."""
        response, connection = self.send("POST", "/v1/completions", body, headers)
        with connection_closed(connection):
            return response.status, json.loads(response.read()), response.headers

    def stream(self, body):
        """An open stream: its events one by one, and its connection."""
        response, connection = self.send("POST", "/v1/completions", body | {"stream": True})
        assert response.status == 200, response.read()
        assert response.headers["Content-Type"].startswith("text/event-stream")
        return events(response), connection

    def pieces(self, body):
        """The texts of a whole stream, whose end is checked."""
        stream, connection = self.stream(body)
        with connection_closed(connection):
            *found, end = stream
        assert end == "[DONE]"
        return [choice["text"] for event in found for choice in event["choices"]], found

    def becomes(self, running, waiting):
        """Wait until so many texts are drawn and wait."""
        wanted = {"status": "ok", "running": running, "waiting": waiting}
        end = time.monotonic() + 10
        while (found := json.loads(self.get("/health")[1])) != wanted:
            assert time.monotonic() < end, found
            time.sleep(0.01)


def events(response):
    """The data of each server-sent event, parsed, as it comes."""
    for line in response:
        if line.startswith(b"data: "):
            data = line[6:].decode().strip()
            yield data if data == "[DONE]" else json.loads(data)


@contextmanager
def connection_closed(connection):
    try:
        yield
    finally:
        connection.close()


@contextmanager
def serving(model, *, name="toy", defaults=None, **limits):
    """A client of a server around ``model``."""
    served = Served(
        name=name,
        model=model.eval(),
        tokenizer=ByteTokenizer(),
        defaults=defaults or GenerationConfig(),
        created=1,
        limits=Limits(**limits),
    )
    server = Server(served, listening_socket("127.0.0.1", 0))
    try:
        yield Client(server)
    finally:
        if isinstance(model, Scripted):
            model.may_step.set()
        server.stop()
        assert not server.wait(0)
