import errno
import itertools
import os
import random
import signal

import pytest
import torch
from processes import start

from sem.training import checkpoint
from sem.training.checkpoint import (
    CheckpointDamaged,
    CheckpointError,
    CheckpointStore,
    CheckpointUnreadable,
    CheckpointWarning,
)


def content(seed: int) -> dict:
    generator = torch.Generator().manual_seed(seed)
    return {
        "weights": torch.randn(2000, generator=generator),
        "loop": {"step": seed, "name": "x", "none": None},
    }


@pytest.fixture
def store(tmp_path):
    return CheckpointStore(tmp_path / "checkpoints", keep=2)


def names(store):
    return sorted(path.name for path in store.folder.iterdir())


def test_content_comes_back(store):
    store.save(3, content(3))
    path, loaded = store.load_latest()
    assert path == store.path(3)
    assert torch.equal(loaded["weights"], content(3)["weights"])
    assert loaded["loop"] == content(3)["loop"]


def test_the_newest_are_kept(store):
    for step in (5, 20, 100):
        store.save(step, content(step))
    assert names(store) == ["step_00000020.pt", "step_00000100.pt"]
    assert store.load_latest()[1]["loop"]["step"] == 100


def test_no_checkpoint_is_none(store):
    assert store.load_latest() is None
    with pytest.raises(CheckpointError, match="there is no such checkpoint"):
        checkpoint.load(store.path(1))


def test_flipped_bit_is_noticed_wherever_it_matters(store):
    path = store.save(1, content(1))
    intact = path.read_bytes()
    draw = random.Random(0)
    noticed = 0
    for position in draw.sample(range(len(intact)), 300):
        damaged = bytearray(intact)
        damaged[position] ^= 1 << draw.randrange(8)
        path.write_bytes(damaged)
        try:
            loaded = checkpoint.load(path)
        except CheckpointError as error:
            assert "damaged" in str(error)
            noticed += 1
        else:
            assert torch.equal(loaded["weights"], content(1)["weights"])
            assert loaded["loop"] == content(1)["loop"]
    assert noticed > 290  # but for the mark in front of the digest


def test_flipped_bit_in_a_tensor_names_its_record(store):
    path = store.save(1, content(1))
    intact = path.read_bytes()
    position = intact.index(content(1)["weights"].numpy().tobytes()) + 4321
    path.write_bytes(intact[:position] + bytes([intact[position] ^ 1]) + intact[position + 1 :])
    with pytest.raises(CheckpointError, match="the checksum of .*data/0 is wrong"):
        checkpoint.load(path)


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.9, 0.9999])
def test_truncated_file_gives_way_to_the_one_before(store, share):
    store.save(1, content(1))
    path = store.save(2, content(2))
    intact = path.read_bytes()
    path.write_bytes(intact[: int(share * len(intact))])
    with pytest.warns(CheckpointWarning, match=r"step_00000002.pt: damaged.*continuing from step_00000001.pt"):
        used, loaded = store.load_latest()
    assert used == store.path(1)
    assert loaded["loop"]["step"] == 1
    assert names(store) == ["step_00000001.pt", "step_00000002.pt"]  # a reader changes nothing
    with pytest.warns(CheckpointWarning):
        CheckpointStore(store.folder, own=True).load_latest()
    assert names(store) == ["step_00000001.pt", "step_00000002.pt.damaged"]


def test_damaged_files_do_not_push_good_ones_out(store):
    store.save(1, content(1))
    store.save(9, content(9)).write_bytes(b"")
    with pytest.warns(CheckpointWarning):
        CheckpointStore(store.folder, own=True).load_latest()
    store.save(2, content(2))
    assert [path.name for path in store.paths()] == ["step_00000001.pt", "step_00000002.pt"]


def test_every_bit_of_a_small_checkpoint(store):
    """A step of 7 bits here; the whole takes a minute: ``sem`` in front of the digest may be lost, nothing else."""
    path = store.save(1, {"weights": torch.arange(5.0), "loop": {"step": 1}})
    intact = path.read_bytes()
    mark = intact.rindex(b"sem sha256 ")
    for bit in range(0, 8 * len(intact), 7):
        damaged = bytearray(intact)
        damaged[bit // 8] ^= 1 << (bit % 8)
        path.write_bytes(damaged)
        if mark <= bit // 8 < mark + len(b"sem sha256 "):
            with pytest.warns(CheckpointWarning, match="has no digest"):
                loaded = checkpoint.load(path)
            assert torch.equal(loaded["weights"], torch.arange(5.0)) and loaded["loop"] == {"step": 1}
        else:
            with pytest.raises(CheckpointDamaged):
                checkpoint.load(path)


def test_a_checkpoint_of_before_loads_and_says_so(store):
    store.folder.mkdir()
    torch.save(content(4), store.path(4))
    with pytest.warns(CheckpointWarning, match="has no digest, as earlier versions wrote it"):
        assert store.load_latest()[1]["loop"]["step"] == 4


@pytest.mark.parametrize("error", [errno.EIO, errno.EMFILE, errno.ENOMEM, errno.EACCES, "memory", "torch's memory"])
def test_what_cannot_be_read_now_is_not_damaged(store, monkeypatch, error):
    for step in (1, 2):
        store.save(step, content(step))

    def fail(*arguments, **options):
        if error == "memory":
            raise MemoryError
        if error == "torch's memory":
            raise RuntimeError("[enforce fail at alloc_cpu.cpp:117] DefaultCPUAllocator: can't allocate memory")
        raise OSError(error, os.strerror(error), str(store.path(2)))

    where = "torch.load" if isinstance(error, str) else "sem.training.checkpoint.is_whole"
    monkeypatch.setattr(where, fail)
    with pytest.raises(CheckpointUnreadable, match=r"step_00000002.pt: cannot be read now \(.*nothing was changed"):
        CheckpointStore(store.folder, own=True).load_latest()
    monkeypatch.undo()
    assert names(store) == ["step_00000001.pt", "step_00000002.pt"]
    assert store.load_latest()[1]["loop"]["step"] == 2


def test_a_reader_beside_the_writer_never_fails(store, monkeypatch):
    """The listed checkpoint is gone when it is opened: its successor is there."""
    store.save(1, content(1))
    load, step = checkpoint.load, itertools.count(2)

    def overtaken(path):
        if (number := next(step)) < 6:
            store.save(number, content(number))
            store.path(number - 1).unlink(missing_ok=True)
        return load(path)

    monkeypatch.setattr(checkpoint, "load", overtaken)
    assert store.load_latest()[1]["loop"]["step"] >= 5


def test_folders_and_dangling_links_are_no_checkpoints(store):
    store.save(1, content(1))
    store.path(5).mkdir()
    store.path(9).symlink_to("/nowhere")
    assert store.load_latest()[0] == store.path(1)


def test_what_is_set_aside_replaces_nothing(store):
    for _ in range(2):
        store.save(1, content(1))
        store.save(2, content(2))
        store.set_aside_after(1)
    assert names(store) == ["step_00000001.pt", "step_00000002.pt.superseded", "step_00000002.pt.superseded-2"]
    assert len(store.unusable()) == 2


def test_the_run_that_is_replaced_goes_with_the_first_checkpoint(store, tmp_path):
    before = tmp_path / "overwritten"
    before.mkdir()
    (before / "metrics.csv").write_text("step")
    store.replaces = before
    store.save(1, content(1))
    assert not before.exists()


def test_all_damaged_is_an_error(store):
    for step in (1, 2):
        store.save(step, content(step)).write_bytes(b"PK")
    with pytest.raises(CheckpointError, match=r"no usable checkpoint is left.*00000002.*00000001"):
        store.load_latest()


def test_code_in_a_file_is_not_run(tmp_path, store):
    class Trap:
        def __reduce__(self):
            return (open, (str(tmp_path / "sprung"), "w"))

    store.folder.mkdir()
    torch.save({"trap": Trap()}, store.path(1))
    with pytest.raises(CheckpointError):
        checkpoint.load(store.path(1))
    assert not (tmp_path / "sprung").exists()


def test_other_files_are_left_alone(store):
    store.folder.mkdir()
    (store.folder / "step_notes.pt").write_text("mine")
    for step in (1, 2, 3):
        store.save(step, content(step))
    assert names(store) == ["step_00000002.pt", "step_00000003.pt", "step_notes.pt"]


def test_later_checkpoints_are_set_aside(store):
    for step in (1, 2):
        store.save(step, content(step))
    store.set_aside_after(1)
    assert names(store) == ["step_00000001.pt", "step_00000002.pt.superseded"]


FULL_DISK = """
import resource, sys, torch
from sem.training.checkpoint import CheckpointStore
store = CheckpointStore(sys.argv[1], keep=1)
store.save(1, {"weights": torch.ones(10)})
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
store.save(2, {"weights": torch.ones(1_000_000)})
"""


def test_full_disk_keeps_the_old_checkpoint_and_says_so(store):
    process = start(FULL_DISK, str(store.folder))
    output = process.communicate(timeout=60)[0]
    assert process.returncode == 1
    assert "CheckpointError" in output
    assert "step_00000002.pt: cannot write the checkpoint (File too large); step_00000001.pt is kept" in output
    assert names(store) == ["step_00000001.pt"]
    assert store.load_latest()[1]["weights"].sum() == 10


STALLED_WRITE = """
import os, sys, time, torch
from sem.training import checkpoint

def stall(*arguments):
    print("stalled", flush=True)
    time.sleep(60)

store = checkpoint.CheckpointStore(sys.argv[1], keep=1)
store.save(1, {"weights": torch.ones(1000)})
if sys.argv[2] == "in the middle":
    write = checkpoint.SealingFile.write
    def write_half(self, data):
        write(self, bytes(data)[: len(data) // 2])
        self._file.flush()
        if self._file.tell() > 2_000_000:
            stall()
        return write(self, bytes(data)[len(data) // 2 :])
    checkpoint.SealingFile.write = write_half
else:
    os.replace = stall
store.save(2, {"weights": torch.ones(1_000_000)})
"""


@pytest.mark.parametrize("moment", ["in the middle", "before the rename"])
def test_killed_write_leaves_the_last_good_checkpoint(store, moment):
    process = start(STALLED_WRITE, str(store.folder), moment)
    assert process.stdout.readline() == "stalled\n"
    process.kill()
    assert process.wait(timeout=60) == -signal.SIGKILL
    process.stdout.close()
    assert names(store) == ["step_00000001.pt", "step_00000002.pt.writing"]
    assert (store.folder / "step_00000002.pt.writing").stat().st_size > 1_000_000
    path, loaded = store.load_latest()
    assert path == store.path(1)
    assert loaded["weights"].sum() == 1000
    store.save(3, content(3))
    assert names(store) == ["step_00000001.pt", "step_00000003.pt"]
