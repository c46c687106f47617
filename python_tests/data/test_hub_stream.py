"""A dataset by its name, from a hub on this machine, through the library's own client."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time

import pytest
from local_hub import REPOSITORY, LocalHub
from processes import modules_path
from shards import data_config, shard_texts, train_loader, write_parquet

from sem.data.source import open_source

SHARDS = shard_texts(3, 23)
FIRST, SECOND = "a" * 40, "b" * 40

CLIENT = """
import json, sys
from shards import data_config, train_loader
from sem.data.source import open_source

def answer(settings, state, count):
    config = data_config(**settings)
    loader = train_loader(open_source(config), config)
    if state is not None:
        loader.load_state_dict(state)
    targets = [next(loader)["targets"].tolist() for _ in range(count)]
    loader.close()
    return targets, loader.state_dict()

if __name__ == "__main__":
    for line in sys.stdin:
        try:
            print(json.dumps(answer(*json.loads(line))), flush=True)
        except ValueError as error:
            print(json.dumps(str(error)), flush=True)
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_parquet(tmp_path_factory.mktemp("files"), SHARDS)


@pytest.fixture(scope="module")
def hub(folder):
    contents = [path.read_bytes() for path in sorted(folder.iterdir())]
    files = {f"data/train-{number:05d}-of-00003.parquet": content for number, content in enumerate(contents)}
    server = LocalHub(files | {"README.md": b"# Mine\n"}, FIRST)
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="module")
def stream(hub, tmp_path_factory):
    """Batches and state of a loader in a process whose hub is ours, or what it raised."""
    environment = {name: value for name, value in os.environ.items() if name != "HF_HUB_OFFLINE"}
    environment |= {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path_factory.mktemp("cache")), "OMP_NUM_THREADS": "1"}
    environment["PYTHONPATH"] = modules_path()
    client = subprocess.Popen(
        [sys.executable, "-c", CLIENT], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    )

    def ask(settings, state=None, count=5):
        print(
            json.dumps([{"dataset": REPOSITORY, "retries": 0} | settings, state, count]), file=client.stdin, flush=True
        )
        return json.loads(client.stdout.readline())

    yield ask
    client.communicate(timeout=60)


def test_a_dataset_by_name_gives_the_same_rows_as_its_files(folder, stream):
    targets, state = stream({"num_workers": 1}, count=8)
    assert state["identity"]["dataset"] == REPOSITORY
    assert state["identity"]["dataset_revision"] == FIRST
    config = data_config(dataset=str(folder))
    local = train_loader(open_source(config), config)
    assert targets == [next(local)["targets"].tolist() for _ in range(8)]


def test_a_run_goes_on_in_its_commit_and_in_no_other(hub, stream, monkeypatch):
    whole, _ = stream({}, count=8)
    begun, state = stream({}, count=3)
    monkeypatch.setattr(hub, "commit", SECOND)
    assert f"dataset_revision: saved {FIRST}, now {SECOND}" in stream({}, state)
    resumed, _ = stream({"dataset_revision": FIRST}, state)
    assert begun + resumed == whole


def test_a_name_that_is_not_there_is_an_error_at_once(stream):
    begin = time.monotonic()
    assert "data.dataset = 'me/other': DatasetNotFoundError: " in stream({"dataset": "me/other", "retries": 100})
    assert time.monotonic() - begin < 60
