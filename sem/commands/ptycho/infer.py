"""``sem ptycho infer``: a scan through a trained network."""

from __future__ import annotations

import argparse
from pathlib import Path

HELP = "reconstruct a scan with a trained network"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The run, the scan, and the file of the result."""
    parser.add_argument("run", metavar="RUN", help="a run's folder (its newest checkpoint), or a checkpoint")
    parser.add_argument("scan", metavar="FILE", help="the scan, with its probe")
    parser.add_argument("--output", metavar="FILE", help="the result, .h5; default: FILE's name with -network.h5")
    parser.add_argument("--batch", type=int, default=64, help="patterns at a time (default: 64)")
    parser.add_argument("--threads", type=int, help="CPU threads; default: torch's own choice")


def run(options: argparse.Namespace) -> int:
    """Write the stitched object as a result; prints patterns per second and, where the scan holds its object, the
    scores."""
    from sem.ptycho.files import read_scan
    from sem.ptycho.training.data import NetworkScan
    from sem.ptycho.training.inference import load_network, predict
    from sem.ptycho.training.results import keep_result, score
    from sem.training.devices import use_threads

    if options.batch < 1:
        raise ValueError(f"--batch: expected a number >= 1, got {options.batch}")
    if options.threads is not None:
        use_threads(options.threads)
    trained = load_network(options.run)
    data = NetworkScan.from_file(options.scan, read_scan(options.scan))
    predicted = predict(trained.model, data, trained.rms, batch=options.batch)
    target = Path(options.output or Path(options.scan).with_name(f"{Path(options.scan).stem}-network.h5"))
    name = f"{trained.config.generator.architecture}, step {trained.step}"
    found = keep_result(target, name, data, predicted)
    print(f"{len(data.scan)} patterns, {predicted.patterns_per_second:.0f} a second; {target}")
    if data.truth is not None:
        print(score(found, data, trained.config.data.crop))
    return 0
