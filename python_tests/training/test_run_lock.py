import errno
import os
import signal
from pathlib import Path

import pytest
from processes import start

from sem.run_names import LOCK_FILE
from sem.training.run_lock import RunInUse, RunLock

HOLDER = """
import sys, time
from sem.training.run_lock import RunLock
with RunLock(sys.argv[1]):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_second_process_is_told_who_holds_the_folder_and_death_frees_it(tmp_path):
    holder = start(HOLDER, str(tmp_path))
    assert holder.stdout.readline() == "held\n"
    with pytest.raises(RunInUse, match=rf"training.output_dir = .*held by process {holder.pid} on .* since 20"):
        RunLock(tmp_path).__enter__()
    holder.send_signal(signal.SIGKILL)
    holder.wait(timeout=60)
    holder.stdout.close()
    with RunLock(tmp_path) as lock:
        assert lock.supported and str(os.getpid()) in (tmp_path / LOCK_FILE).read_text()
    assert (tmp_path / LOCK_FILE).read_text() == ""


def test_one_process_holds_it_once(tmp_path):
    with RunLock(tmp_path):
        with pytest.raises(RunInUse):
            RunLock(Path(os.path.relpath(tmp_path))).__enter__()
        holder = start(HOLDER, str(tmp_path))  # the failed attempt must not have given ours away
        assert "RunInUse" in holder.communicate(timeout=60)[0]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="POSIX")
def test_children_do_not_inherit_it(tmp_path):
    with RunLock(tmp_path):
        child = os.fork()
        if child == 0:
            signal.pause()
            os._exit(0)
    try:
        with RunLock(tmp_path):
            pass
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def test_a_file_system_without_locks_keeps_nobody_out(tmp_path, monkeypatch):
    def refuse(descriptor):
        raise OSError(errno.ENOTSUP, os.strerror(errno.ENOTSUP))

    monkeypatch.setattr("sem.training.run_lock._lock", refuse)
    with RunLock(tmp_path) as one, RunLock(tmp_path) as other:
        assert not one.supported and not other.supported
