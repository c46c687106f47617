"""Timings of the operators against their peers: ``sem bench``, or ``python -m sem.bench``."""

from sem.bench.command import command, main

__all__ = ["command", "main"]
