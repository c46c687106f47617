"""``sem serve`` from the command line: one run, its port, its end."""

import json
import re
import signal
import socket
import sys
import urllib.request

import pytest
from processes import start
from saved_run import saved_run

from sem.cli import main

COMMAND = "import sys; from sem.cli import main; sys.exit(main(['serve', *sys.argv[1:]]))"


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The folder of a run that was never trained."""
    folder = tmp_path_factory.mktemp("runs") / "waves"
    return saved_run(folder, "generation.temperature=0.7", "generation.top_k=40", endless=True)


def test_a_served_text_is_that_of_sem_generate_and_ctrl_c_ends_it_in_a_line(run, capsys):
    process = start(COMMAND, str(run), "--port=0", "--threads=1", "--max_tokens=100000")
    try:
        line = process.stdout.readline()
        address = re.fullmatch(r"waves, step 5: (http://127\.0\.0\.1:\d+) \(Ctrl-C ends it\)\n", line)[1]
        body = {"prompt": "the wave", "max_tokens": 20, "seed": 4, "top_p": 0.9}
        with post(address, body) as response:
            served = json.load(response)["choices"][0]["text"]
        with post(address, body | {"stream": True, "max_tokens": 100000}) as response:
            assert response.readline().startswith(b"data: ")
            process.send_signal(signal.SIGINT)
            rest = response.read()
        assert b"the server is stopping" in rest and rest.endswith(b"data: [DONE]\n\n")
        assert (process.wait(20), process.stdout.read()) == (0, "\nstopped by SIGINT\n")
    finally:
        process.kill()
    options = ["--prompt=the wave", "--length=20", "--seed=4", "--top_p=0.9", "--threads=1"]
    assert main(["generate", str(run), *options]) == 0
    assert capsys.readouterr().out == f"the wave{served}\n"


def post(address, body):
    headers = {"Content-Type": "application/json"}
    request = urllib.request.Request(f"{address}/v1/completions", json.dumps(body).encode(), headers)
    return urllib.request.urlopen(request, timeout=20)


def test_wrong_arguments_are_one_sentence(run, capsys):
    def told(*options):
        assert main(["serve", str(run), *options]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        return line

    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert told(f"--port={port}") == f"sem: --port {port}: expected a free port of 127.0.0.1, it is in use"
    assert "--port 70000: expected 0 to 65535" in told("--port=70000")
    assert "--max_tokens 0: expected an integer >= 1" in told("--max_tokens=0")
    assert "--waiting -1: expected an integer >= 0" in told("--waiting=-1")
    assert "--host 192.0.2.1: expected an address of this machine" in told("--host=192.0.2.1", "--port=0")
    assert f"--host {'a' * 64}: expected a name or an address of this" in told(f"--host={'a' * 64}", "--port=0")
    assert "--threads 0: expected an integer >= 1 and <= 4096" in told("--threads=0", "--port=0")
    assert "--threads 9999999999: expected an integer >= 1" in told("--threads=9999999999", "--port=0")


def test_whoever_opens_the_door_is_told(run, capsys, monkeypatch):
    from sem.serving.server import Server

    seen = []
    monkeypatch.setattr(
        Server, "wait", lambda self, timeout: seen.append(self.address) or signal.raise_signal(2) or True
    )
    assert main(["serve", str(run), "--host=0.0.0.0", "--port=0"]) == 0
    captured = capsys.readouterr()
    (line,) = captured.err.splitlines()
    assert line.startswith("sem: --host 0.0.0.0: everyone who reaches this machine can use the model")
    assert seen[0].startswith("http://0.0.0.0:") and captured.out.endswith("stopped by SIGINT\n")


def test_a_missing_library_is_named_with_what_installs_it(run, capsys, monkeypatch):
    for module in ("sem.serving.app", "sem.serving.server"):
        monkeypatch.delitem(sys.modules, module, raising=False)
    monkeypatch.setitem(sys.modules, "fastapi", None)
    assert main(["serve", str(run), "--port=0"]) == 1
    assert capsys.readouterr().err == "sem: sem serve needs FastAPI and uvicorn: pip install 'sem-torch[serve]'\n"
