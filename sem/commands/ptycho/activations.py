"""``sem ptycho activations``: what the layers of a trained network do on a scan, and what moved between two files."""

from __future__ import annotations

import argparse
from pathlib import Path

from sem.run_names import ACTIVATIONS

HELP = "statistics of a trained network's layers on a scan"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Network, scan, files and plot, or two files to compare."""
    parser.add_argument("--checkpoint", metavar="WHERE", help="a run's folder (its newest checkpoint), or a checkpoint")
    parser.add_argument("--data", metavar="FILE", help="the scan; default: the one the network was trained on")
    parser.add_argument("--samples", metavar="N", default="all", help="first patterns of the scan, a number or 'all'")
    parser.add_argument("--batch", type=int, default=64, help="patterns at a time (default: 64)")
    name = f"name of the file in the run's folder (default: {ACTIVATIONS})"
    parser.add_argument("--output-json-name", metavar="NAME", default=ACTIVATIONS, help=name)
    parser.add_argument("--plot", metavar="FILE", help="draw the statistics over the depth of the network")
    parser.add_argument("--compare", nargs=2, metavar=("A", "B"), help="say what moved from one such file to another")
    parser.add_argument("--threads", type=int, help="CPU threads; default: torch's own choice")


def run(options: argparse.Namespace) -> int:
    """Measure the network's layers on the scan, or print what moved between two files."""
    from sem.commands.activations import compare_files

    if (options.checkpoint is None) == (options.compare is None):
        got = "neither" if options.checkpoint is None else "both"
        raise ValueError(f"activations: expected --checkpoint, or --compare with two files, got {got}")
    return _measure(options) if options.compare is None else compare_files(*options.compare)


def _measure(options: argparse.Namespace) -> int:
    from sem.activations import plot_depth, write
    from sem.commands.activations import print_statistics, sample_count
    from sem.ptycho.files import read_scan
    from sem.ptycho.training.activations import measure_network
    from sem.ptycho.training.data import NetworkScan
    from sem.ptycho.training.inference import load_network
    from sem.training.devices import use_threads
    from sem.training.progress import CountDisplay
    from sem.training.run_folder import run_folder_of

    samples = sample_count(options.samples)
    if options.batch < 1:
        raise ValueError(f"--batch: expected a number >= 1, got {options.batch}")
    if Path(options.output_json_name).name != options.output_json_name:
        raise ValueError(f"--output-json-name {options.output_json_name}: expected a name without a folder")
    if options.threads is not None:
        use_threads(options.threads)
    trained = load_network(options.checkpoint)
    path = trained.config.data.train if options.data is None else options.data
    data = NetworkScan.from_file(path, read_scan(path))
    count = len(data.scan) if samples is None else min(samples, len(data.scan))
    with CountDisplay("patterns, in two passes:", 2 * count) as display:
        found = measure_network(trained, data, samples=count, batch=options.batch, progress=display.advance)
    target = run_folder_of(Path(options.checkpoint)) / options.output_json_name
    write(target, found)
    if options.plot is not None:
        plot_depth(found, options.plot, f"{trained.path.name}, {count} patterns")
    print_statistics(found)
    print(f"{count} patterns, step {trained.step}: {target}")
    return 0
