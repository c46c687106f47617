"""Reader processes: what comes out, and how they end."""

from __future__ import annotations

import os
import signal
import time

import pytest
from processes import start
from reader_items import Endless, Stuck
from shards import MemorySource, data_config, shard_texts, train_loader

from sem.data.reader import ReaderDied, ReaderProcess
from sem.data.source import DataSourceError

SLOW = 20.0


class Failing:
    """One item, then an error."""

    def __init__(self, error: Exception) -> None:
        self.error = error

    def __iter__(self):
        yield 1
        raise self.error


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    with open(f"/proc/{pid}/stat") as file:
        return file.read().rpartition(")")[2].split()[0] != "Z"


def wait_for(condition) -> None:
    limit = time.monotonic() + SLOW
    while not condition():
        assert time.monotonic() < limit
        time.sleep(0.02)


def test_items_in_order_and_the_end():
    assert list(ReaderProcess(range(40), "numbers")) == list(range(40))


@pytest.mark.parametrize("error", [ValueError("data.x = 1: wrong"), DataSourceError("gave up"), ImportError("pip")])
def test_errors_for_the_user_come_through_as_they_are(error):
    reader = ReaderProcess(Failing(error), "numbers")
    assert next(reader) == 1
    with pytest.raises(type(error)) as raised:
        next(reader)
    assert str(raised.value) == str(error)
    assert not reader.process.is_alive()


def test_other_errors_come_with_their_traceback():
    reader = ReaderProcess(Failing(KeyError("lost")), "numbers")
    next(reader)
    with pytest.raises(RuntimeError, match=r"the process that reads numbers failed:\n(.|\n)*KeyError: 'lost'"):
        next(reader)


@pytest.mark.parametrize("items", [Endless(), Stuck()])
def test_a_killed_reader_is_an_error_at_once(items):
    reader = ReaderProcess(items, "data.dataset = 'memory'")
    pid = next(reader)
    os.kill(pid, signal.SIGKILL)
    begin = time.monotonic()
    with pytest.raises(
        ReaderDied, match="the process that reads data.dataset = 'memory' was killed by SIGKILL; was it"
    ):
        while True:
            next(reader)
    assert time.monotonic() - begin < 5.0


def test_ctrl_c_at_the_start_does_not_reach_the_reader():
    reader = ReaderProcess(range(3), "numbers")
    os.kill(reader.process.pid, signal.SIGINT)
    assert list(reader) == [0, 1, 2]


def test_ctrl_c_is_left_to_the_parent_and_close_ends_the_reader():
    reader = ReaderProcess(Endless(), "numbers")
    pid = next(reader)
    os.kill(pid, signal.SIGINT)
    assert [next(reader) for _ in range(100)] == [pid] * 100
    reader.close()
    assert not alive(pid)


@pytest.mark.parametrize("items", ["Endless", "Stuck"])
@pytest.mark.parametrize("way", ["killed", "exits"])
def test_no_reader_outlives_its_parent(items, way):
    script = (
        "import time; from reader_items import Endless, Stuck; from sem.data.reader import ReaderProcess\n"
        f"if __name__ == '__main__':\n    reader = ReaderProcess({items}(), 'numbers')\n"
        "    print(next(reader), flush=True)\n"
        f"    time.sleep({1000 if way == 'killed' else 0})\n"
    )
    parent = start(script)
    pid = int(parent.stdout.readline())
    if way == "killed":
        parent.kill()
    parent.communicate(timeout=SLOW)
    wait_for(lambda: not alive(pid))


def test_a_loader_whose_reader_is_killed_says_so_and_can_go_on():
    loader = train_loader(MemorySource(shard_texts(3, 23)), data_config(num_workers=1))
    next(loader)
    os.kill(loader._readers[0].process.pid, signal.SIGKILL)
    with pytest.raises(ReaderDied, match="data.dataset = 'memory' was killed by SIGKILL"):
        for _ in range(1000):
            next(loader)
    state = loader.state_dict()
    alone = train_loader(MemorySource(shard_texts(3, 23)), data_config())
    alone.load_state_dict(state)
    loader.close()
    assert next(loader)["targets"].tolist() == next(alone)["targets"].tolist()
    loader.close()
