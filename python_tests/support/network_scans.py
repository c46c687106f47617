"""Small scans with a known object, and the settings of a network that learns them in seconds."""

import torch

from sem.ptycho import ScanFile, disk_probe, lines_object, raster_scan, simulate, write_scan
from sem.ptycho.training.data import NetworkScan
from sem.ptycho.training.settings import NetworkConfig

SMALL = (
    "generator.width=4",
    "generator.blocks=2",
    "generator.modes=4",
    "training.group_side=2",
    "training.batch_size=8",
    "training.micro_batch_size=8",
    "training.warmup_steps=2",
    "training.num_threads=1",
    "training.log_every=1",
    "training.device=cpu",
    "training.loggers=csv",
)


def small_scan(seed=1, *, fraction=0.0, weight=None, rows=7):
    """A scan of patterns of 16 x 16, its probe in units of counts, and the object."""
    truth = lines_object(16 + 3 * (rows - 1) + 2, 20, seed=seed)
    positions = raster_scan(rows, rows, 3, jitter=0) + fraction
    scan, probe = simulate(truth, disk_probe(16, 4.0, defocus=4.0), positions, photons=1e7, seed=3, weight=weight)
    return NetworkScan("small", scan, probe, truth)


def scan_file(path, **options):
    data = small_scan(**options)
    write_scan(path, ScanFile(data.scan, data.probe, data.truth))
    return path


def network_config(folder, *overrides, test=False):
    """Of a run in ``folder/run``, of a scan that is written to ``folder``."""
    train = folder / "train.h5"
    if not train.exists():
        scan_file(train)
    own = [f"data.train={train}", f"training.output_dir={folder / 'run'}"]
    if test:
        own.append(f"data.test={scan_file(folder / 'test.h5', seed=2)}")
    return NetworkConfig().with_overrides(*SMALL, *own, *overrides)


def true_patches(data, patterns):
    side = data.scan.side
    corners = data.scan.corners[patterns].tolist()
    return torch.stack([data.truth[y : y + side, x : x + side] for y, x in corners])
