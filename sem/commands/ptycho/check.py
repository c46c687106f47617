"""``sem ptycho check``: what operators, simulation and engines must keep, measured on this machine."""

from __future__ import annotations

import argparse
import sys

HELP = "check the forward model, its gradients and the engines in a few seconds"
FAILED = 1


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """There are none."""


def run(options: argparse.Namespace) -> int:
    """Print every check with its value and limit; status 1 where one is above its limit or NaN."""
    from sem.ptycho.self_check import CHECKS

    failed = []
    for check in CHECKS:
        value = check.measure()
        holds = value <= check.limit  # no NaN does
        print(f"{'ok' if holds else 'FAILED':<6} {check.name}: {value:.2g} (at most {check.limit:g})", flush=True)
        if not holds:
            failed.append(check.name)
    for name in failed:
        print(f"FAILED {name}", file=sys.stderr)
    return FAILED if failed else 0
