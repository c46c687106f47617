"""A run that trains nothing: python toy_program.py FOLDER SEED section.key=value ...

It leaves what a sweep reads, continues what it finds, and ends cleanly at SIGINT. ``starts.txt`` gets the step at which
each start began. Half-way it waits at a gate, if the environment has ``TOY_GATE=NAME:PATH`` and its folder's path has
NAME in it: until there is a file PATH, or half a minute. Imports nothing but the standard library, so that it starts in
milliseconds.
"""

import json
import os
import signal
import sys
import time

OPTIONS = {
    "toy.mode": "good",  # crash, crash_once, silent, stubborn
    "toy.level": "1.0",  # of the losses
    "toy.reach": "1.0",  # what the seeds' losses differ by is times this
    "toy.steps": "8",
    "toy.collapse": "",  # seeds that collapse
    "toy.ignored": "",  # a setting that does not arrive
}


def main(folder, seed, *overrides):
    options = OPTIONS | dict(override.split("=", 1) for override in overrides)
    mode, level, steps = options["toy.mode"], float(options["toy.level"]), int(options["toy.steps"])
    if mode == "stubborn":
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    else:
        signal.signal(signal.SIGINT, lambda *_: sys.exit(0))
    shift = float(options["toy.reach"]) * int(seed)
    table = os.path.join(folder, "metrics.csv")
    done = steps_in(table)
    with open(os.path.join(folder, "starts.txt"), "a") as starts:
        starts.write(f"{done}\n")
    print(f"{mode} at level {level}, threads {os.environ['OMP_NUM_THREADS']}")
    with open(table, "a") as file:
        if not done:
            file.write("step,loss,val_loss,grad_norm,learning_rate,elapsed_seconds\n")
        for step in range(done + 1, steps + 1):
            if step == steps // 2:
                wait_at_gate(folder)
            if step == steps // 2 and (mode == "crash" or (mode == "crash_once" and not done)):
                file.flush()
                raise RuntimeError("the toy broke")
            value = loss(level, shift, step)
            held_out = repr(value + 0.5) if step % 2 == 0 else ""
            file.write(f"{step},{value!r},{held_out},{1 / step!r},{0.1 / step!r},{step * level!r}\n")
            file.flush()
    if mode != "silent":
        value = loss(level, shift, steps)
        collapsed = seed in options["toy.collapse"].split(",")
        final = {"error": value, "floor": 10.0, "score": -value, "collapsed": collapsed}
        with open(os.path.join(folder, "final.json.writing"), "w") as file:
            json.dump(final, file)
        os.replace(file.name, os.path.join(folder, "final.json"))


def wait_at_gate(folder):
    name, _, gate = os.environ.get("TOY_GATE", "").partition(":")
    deadline = time.monotonic() + 30.0
    while gate and name in folder and not os.path.exists(gate) and time.monotonic() < deadline:
        time.sleep(0.02)


def loss(level, shift, step):
    return level * (1.0 + 1.0 / step) + 0.01 * shift


def steps_in(table):
    """Complete rows; half of one is cut off."""
    try:
        with open(table, "r+") as file:
            text = file.read()
            complete = text[: text.rfind("\n") + 1]
            file.truncate(len(complete))
            return max(0, complete.count("\n") - 1)
    except FileNotFoundError:
        return 0


if __name__ == "__main__":
    main(*sys.argv[1:])
