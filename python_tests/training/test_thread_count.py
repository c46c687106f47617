"""The number of threads follows what a step takes, and the bits of a run do not follow the number of threads."""

import itertools

import pytest
import torch
from toy import RecordingDisplay, toy_trainer

from sem.config import SEMConfig
from sem.training.thread_count import AdaptiveThreads
from sem.training.trainer import SEMTrainer


class Machine:
    """Cores, of which others take some: a step on more threads than are left takes five times as long."""

    def __init__(self, cores, step=0.05, speedup=0.75):
        self.cores, self.step, self.speedup = cores, step, speedup
        self.now, self.taken, self.used = 0.0, 0, []
        self.threads = AdaptiveThreads(cores, use=self.used.append, clock=lambda: self.now)

    def seconds(self, threads):
        alone = self.step / threads**self.speedup
        return alone * (5 if threads > self.cores - self.taken else 1)

    def run(self, seconds):
        """Train for so long; returns the steps done."""
        steps, end = 0, self.now + seconds
        while self.now < end:
            took = self.seconds(self.threads.count)
            self.now += took
            steps += 1
            self.threads.after_step(took)
        return steps


def test_a_quiet_machine_loses_nothing():
    machine = Machine(2)
    assert machine.run(60.0) >= 0.99 * 60.0 / machine.seconds(2)
    assert machine.threads.count == 2
    assert machine.used == [1, 2]  # one look at the start, whether somebody was there before


@pytest.mark.parametrize(("cores", "taken"), [(2, 1), (4, 1), (4, 3), (16, 1), (16, 8), (64, 5)])
def test_where_cores_are_taken_fewer_threads_work(cores, taken):
    machine = Machine(cores)
    machine.run(20.0)
    machine.taken = taken
    machine.run(10.0)
    best = 120.0 / machine.seconds(cores - taken)
    assert machine.run(120.0) > 0.75 * best
    assert machine.threads.count <= cores - taken


def test_a_machine_that_is_busy_from_the_start():
    machine = Machine(2)
    machine.taken = 1
    assert machine.run(60.0) > 0.9 * 60.0 / machine.seconds(1)


@pytest.mark.parametrize("cores", [2, 4, 16])
def test_all_threads_work_again_once_the_others_have_gone(cores):
    machine = Machine(cores)
    machine.taken = 1
    machine.run(300.0)
    machine.taken = 0
    machine.run(70.0)
    assert machine.threads.count >= 7 / 8 * cores  # the last ones are worth less than the steps vary


def test_a_pause_of_the_others_is_not_their_end():
    machine = Machine(2)
    machine.taken = 1
    machine.run(30.0)
    machine.taken = 0
    while machine.threads.count == 1 or machine.threads._start is not None:
        machine.run(machine.step)
    machine.taken = 1  # what two threads take now is all that has been seen of them since
    machine.run(5.0)
    assert machine.threads.count == 1


def test_a_machine_with_one_core_is_left_alone():
    machine = Machine(1)
    machine.taken = 1
    machine.run(10.0)
    assert machine.used == []


def test_no_threads_are_refused():
    with pytest.raises(ValueError, match=r"^most: expected a number of threads >= 1, got 0$"):
        AdaptiveThreads(0)


class Alternating(AdaptiveThreads):
    """Another number of threads after every step."""

    def __init__(self):
        super().__init__(1)
        self.counts = itertools.cycle([1, 2, 3])

    def after_step(self, seconds):
        torch.set_num_threads(next(self.counts))


def test_the_bits_of_a_run_do_not_follow_the_number_of_threads(tmp_path):
    def trained(threads):
        config = SEMConfig.from_yaml("configs/tiny.yaml").with_overrides(
            f"training.output_dir={tmp_path}", "training.max_minutes=null", "training.warmup_steps=4"
        )
        loop = SEMTrainer(config).build_loop(threads=threads)
        loop.run(max_steps=8)
        return loop.state_dict()

    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        alone, changing = trained(None), trained(Alternating())
    finally:
        torch.set_num_threads(before)
    torch.testing.assert_close(changing["model"], alone["model"], rtol=0, atol=0)
    torch.testing.assert_close(changing["optimizer"]["state"], alone["optimizer"]["state"], rtol=0, atol=0)


@pytest.mark.parametrize(("overrides", "expected"), [((), True), (("training.adapt_threads=false",), False)])
def test_a_run_adapts_if_its_configuration_says_so_and_gives_the_threads_back(tmp_path, overrides, expected):
    before = torch.get_num_threads()
    trainer = toy_trainer(tmp_path, *overrides)
    trainer.fit(display=RecordingDisplay())
    assert (trainer.loop.threads is not None) is expected
    assert torch.get_num_threads() == before


def test_measured_steps_say_nothing_about_threads(tmp_path):
    seen = []

    class Watching(AdaptiveThreads):
        def after_step(self, seconds):
            seen.append(seconds)

    trainer = toy_trainer(tmp_path)
    loop = trainer.build_loop(threads=Watching(1))
    loop.run()
    assert len(seen) == 8  # of twelve steps, 1, 4, 8 and 12 are measured
    assert all(second > 0 for second in seen)
