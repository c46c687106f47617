"""A real server on a socket: what it streams, what it refuses, and what it does when clients go away."""

import json
import threading

import pytest
import torch
from served import Scripted, connection_closed, serving
from small_model import SMALL_MODEL

from sem.config import SEMConfig
from sem.config_sections import GenerationConfig
from sem.data import ByteTokenizer
from sem.generation import generate_text
from sem.model import SEMModel

ASKED = {"prompt": "the wave", "max_tokens": 24, "temperature": 0.9, "top_p": 0.95, "seed": 7}


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return SEMModel(SEMConfig().with_overrides(*SMALL_MODEL)).eval()


def expected(model, **asked):
    settings = GenerationConfig(
        prompt=asked["prompt"],
        max_new_tokens=asked["max_tokens"],
        temperature=asked["temperature"],
        top_p=asked["top_p"],
        seed=asked["seed"],
    )
    return "".join(generate_text(model, ByteTokenizer(), settings))


def test_a_text_is_that_of_its_seed_alone_whole_streamed_and_beside_others(model):
    with serving(model, concurrent=3) as client:
        status, answer, _ = client.ask(ASKED)
        assert status == 200
        assert answer["object"] == "text_completion" and answer["model"] == "toy" and answer["id"].startswith("cmpl-")
        (choice,) = answer["choices"]
        assert choice == {"index": 0, "text": expected(model, **ASKED), "logprobs": None, "finish_reason": "length"}
        assert answer["usage"] == {"prompt_tokens": 8, "completion_tokens": 24, "total_tokens": 32}
        texts, found = client.pieces(ASKED | {"stream_options": {"include_usage": True}})
        assert "".join(texts) == choice["text"]
        assert found[-1]["choices"] == [] and found[-1]["usage"] == answer["usage"]

        seeds, answers = range(6), {}

        def ask(seed):
            answers[seed] = client.ask(ASKED | {"seed": seed})[1]["choices"][0]["text"]

        threads = [threading.Thread(target=ask, args=(seed,)) for seed in seeds]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert answers == {seed: expected(model, **(ASKED | {"seed": seed})) for seed in seeds}
    assert len(set(answers.values())) == len(seeds)


def test_without_a_seed_every_text_is_another_and_the_rest_is_the_runs(model):
    defaults = GenerationConfig(max_new_tokens=9, temperature=1.0, seed=3)
    with serving(model, defaults=defaults) as client:
        answers = [client.ask({"prompt": "a", "seed": None})[1] for _ in range(2)]
        assert answers[0]["choices"][0]["text"] != answers[1]["choices"][0]["text"]
        assert answers[0]["usage"]["completion_tokens"] == 9
    with serving(model, defaults=GenerationConfig(temperature=0.0, max_new_tokens=9)) as client:
        answers = [client.ask({"prompt": "a"})[1]["choices"][0]["text"] for _ in range(2)]
    assert answers[0] == answers[1]


def test_pieces_come_as_they_are_drawn_and_characters_whole():
    text = "né 漢🙂."
    scripted = Scripted(text.encode(), ends=True)
    with serving(scripted) as client:
        texts, found = client.pieces({"prompt": "a"})
        assert texts == [*text, ""]
        assert [event["choices"][0]["finish_reason"] for event in found] == [None] * len(text) + ["stop"]
        texts, found = client.pieces({"prompt": "a", "max_tokens": 2})  # which ends within the é
        assert texts == ["n", "\ufffd", ""] and found[-1]["choices"][0]["finish_reason"] == "length"

        scripted.may_step.clear()
        stream, connection = client.stream({"prompt": "a"})
        with connection_closed(connection):
            assert next(stream)["choices"][0]["text"] == "n"  # there while the model has not drawn the rest
            client.becomes(running=1, waiting=0)
            scripted.may_step.set()
            assert [*stream][-1] == "[DONE]"


def test_a_stop_ends_the_text_before_it_however_it_is_cut():
    with serving(Scripted(b"one two three ")) as client:

        def text(**asked):
            choice = client.ask({"prompt": "a", "max_tokens": 40} | asked)[1]["choices"][0]
            return choice["text"], choice["finish_reason"]

        assert text(stop="two") == ("one ", "stop")
        assert text(stop=["three", "wo t"]) == ("one t", "stop")
        assert text(stop=["absent", "three one three"], max_tokens=20) == ("one two three one tw", "length")
        texts, _ = client.pieces({"prompt": "a", "stop": ["two"]})
        assert "".join(texts) == "one " and all("t" not in piece for piece in texts)
        texts, _ = client.pieces({"prompt": "a", "stop": ["two!"], "max_tokens": 9})
        assert "".join(texts) == "one two t"


@pytest.mark.parametrize(
    ("body", "status", "param", "words"),
    [
        (b"{", 400, None, "expected JSON"),
        (b"[" * 5000, 400, None, "expected JSON"),
        (b'"\xff"', 400, None, "expected JSON"),
        (["a"], 400, None, "expected a JSON object, got ['a']"),
        ({}, 400, "prompt", "prompt = None: expected one text"),
        ({"prompt": ["a", "b"]}, 400, "prompt", "expected one text"),
        ({"prompt": "\udce9"}, 400, "prompt", "expected text in UTF-8"),
        ({"prompt": "a" * 51}, 400, "prompt", "prompt: expected at most 50 tokens, got 51"),
        ({"prompt": "a", "max_tokens": 31}, 400, "max_tokens", "max_tokens = 31: expected an integer >= 1 and <= 30"),
        ({"prompt": "a", "max_tokens": 0}, 400, "max_tokens", "expected an integer >= 1"),
        ({"prompt": "a", "max_tokens": 2.5}, 400, "max_tokens", "expected an integer"),
        ({"prompt": "a", "temperature": -1}, 400, "temperature", "temperature = -1: expected a number >= 0"),
        ({"prompt": "a", "temperature": "1"}, 400, "temperature", "temperature = '1': expected a number"),
        ({"prompt": "a", "top_p": 0}, 400, "top_p", "top_p = 0: expected a number > 0 and <= 1"),
        ({"prompt": "a", "seed": -1}, 400, "seed", "expected an integer >= 0"),
        ({"prompt": "a", "n": 2}, 400, "n", "n = 2: expected 1, no other value is supported"),
        ({"prompt": "a", "logprobs": 3}, 400, "logprobs", "expected null"),
        ({"prompt": "a", "stop": ["a"] * 5}, 400, "stop", "up to 4 of them"),
        ({"prompt": "a", "stop": ""}, 400, "stop", "of 1 to 256 characters"),
        ({"prompt": "a", "stream": "yes"}, 400, "stream", "expected true or false"),
        ({"prompt": "a", "stream_options": {"include_usage": True}}, 400, "stream_options", "with stream = true"),
        ({"prompt": "a", "temprature": 1}, 400, "temprature", "did you mean temperature?"),
        ({"prompt": "a", "\udce9": 1}, 400, r"\udce9", "unknown key"),
        ({"prompt": "a", "model": "gpt"}, 404, "model", "model = 'gpt': expected 'toy'"),
    ],
)
def test_what_cannot_be_had_is_one_sentence_in_openais_shape(refusing, body, status, param, words):
    found, answer, _ = refusing.ask(body)
    assert found == status and set(answer) == {"error"}
    error = answer["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert words in error["message"] and "\n" not in error["message"]
    assert (error["param"], error["type"]) == (param, "invalid_request_error")


@pytest.fixture(scope="module")
def refusing():
    with serving(Scripted(b"a"), prompt_tokens=50, new_tokens=30) as client:
        yield client


def test_what_clients_send_without_effect_is_taken(refusing):
    body = {"prompt": "a" * 50, "max_tokens": 30, "model": "toy", "n": 1, "echo": False, "logit_bias": {}, "user": "u"}
    status, answer, _ = refusing.ask(body | {"presence_penalty": 0.0, "suffix": None, "stop": None})
    assert status == 200 and answer["choices"][0]["text"] == "a" * 30


def test_the_door_is_for_this_machine_and_for_requests_of_a_sensible_size(refusing):
    form = {"Content-Type": "text/plain"}  # what a page of another site may send without asking
    assert refusing.ask({"prompt": "a"}, **form)[0] == 415
    for host, status in (("evil.example", 403), ("", 403), ("localhost:1", 200), ("[::1]", 200), ("127.0.0.1", 200)):
        assert refusing.ask({"prompt": "a"}, Host=host)[0] == status
        assert refusing.get("/", Host=host)[0].status == status
    status, answer, _ = refusing.ask({"prompt": "a" * 100_000})
    assert status == 413 and "expected at most" in answer["error"]["message"]
    for method, path, status in (
        ("GET", "/../etc/passwd", 404),
        ("GET", "/docs", 404),
        ("GET", "/v1/completions", 405),
    ):
        response, connection = refusing.send(method, path)
        with connection_closed(connection):
            error = json.loads(response.read())["error"]
            assert response.status == status and path in error["message"]


def test_models_and_health_are_told(refusing):
    entry = {"id": "toy", "object": "model", "created": 1, "owned_by": "sem"}
    assert json.loads(refusing.get("/v1/models")[1]) == {"object": "list", "data": [entry]}
    assert json.loads(refusing.get("/v1/models/toy")[1]) == entry
    response, text = refusing.get("/v1/models/other")
    assert response.status == 404 and json.loads(text)["error"]["code"] == "model_not_found"
    assert json.loads(refusing.get("/health")[1]) == {"status": "ok", "running": 0, "waiting": 0}


def test_the_page_needs_nothing_from_elsewhere(refusing):
    response, page = refusing.get("/")
    assert response.status == 200 and response.headers["Content-Type"].startswith("text/html")
    assert "default-src 'none'" in response.headers["Content-Security-Policy"]
    assert [word for word in ("http:", "https:", "src=", "@import", "url(", "import(") if word in page] == []
    assert "color-scheme: light dark" in page and "prefers-color-scheme: dark" in page and 'lang="en"' in page


def test_beyond_the_queue_requests_are_turned_away_and_the_others_are_answered():
    scripted = Scripted(b"abc")
    scripted.may_step.clear()
    with serving(scripted, concurrent=1, waiting=1) as client:
        first, one = client.stream({"prompt": "a", "max_tokens": 6})
        client.becomes(running=1, waiting=0)
        second, two = client.stream({"prompt": "a", "max_tokens": 6})
        client.becomes(running=1, waiting=1)
        status, answer, headers = client.ask({"prompt": "a"})
        assert status == 503 and int(headers["Retry-After"]) > 0
        assert answer["error"]["type"] == "server_error" and answer["error"]["code"] == "overloaded"
        scripted.may_step.set()
        for stream, connection in ((first, one), (second, two)):
            with connection_closed(connection):
                *found, end = stream
                assert end == "[DONE]" and "".join(event["choices"][0]["text"] for event in found) == "abcabc"
        client.becomes(running=0, waiting=0)
        assert client.ask({"prompt": "a", "max_tokens": 3})[0] == 200


@pytest.mark.parametrize("streamed", [True, False])
def test_a_client_that_goes_away_frees_its_place(streamed):
    scripted = Scripted(b"abc")
    scripted.may_step.clear()
    with serving(scripted, concurrent=1, waiting=1, new_tokens=10**6) as client:
        connections = []
        for count in (0, 1):
            connection = client_connection(client, {"prompt": "a", "max_tokens": 10**6, "stream": streamed})
            client.becomes(running=1, waiting=count)
            connections.append(connection)
        connections[1].close()  # the one that waits
        client.becomes(running=1, waiting=0)
        connections[0].close()
        scripted.may_step.set()
        client.becomes(running=0, waiting=0)
        steps = scripted.steps
        assert client.ask({"prompt": "a", "max_tokens": 3})[1]["choices"][0]["text"] == "abc"
        assert scripted.steps == steps + 2  # and none for those who went
        assert steps < 10**5


def client_connection(client, body):
    """A connection that a request went over, whose answer nobody has begun to read."""
    import http.client

    connection = http.client.HTTPConnection("127.0.0.1", client.port, timeout=20)
    connection.request("POST", "/v1/completions", json.dumps(body), {"Content-Type": "application/json"})
    return connection


def test_a_text_that_fails_ends_alone():
    class Damaged(Scripted):
        def step(self, token, state):
            predicted, state = super().step(token, state)
            return predicted * float("nan"), state

    with serving(Damaged(b"abc")) as client:
        status, answer, _ = client.ask({"prompt": "a"})
        assert status == 500 and "probabilities are not finite" in answer["error"]["message"]
        stream, connection = client.stream({"prompt": "a"})
        with connection_closed(connection):
            first, error, end = stream
        assert first["choices"][0]["text"] == "a" and "not finite" in error["error"]["message"] and end == "[DONE]"
        assert client.ask({"prompt": "a", "max_tokens": 1})[0] == 200


def test_a_server_that_stops_says_so_to_those_it_answers():
    scripted = Scripted(b"abc")
    with serving(scripted) as client:
        scripted.may_step.clear()
        stream, connection = client.stream({"prompt": "a"})
        with connection_closed(connection):
            assert next(stream)["choices"][0]["text"] == "a"
            threading.Timer(0.2, scripted.may_step.set).start()
            client.server.stop()
            *_, error, end = stream
        assert "stopping" in error["error"]["message"] and end == "[DONE]"
        with pytest.raises(OSError):
            client.get("/health")
