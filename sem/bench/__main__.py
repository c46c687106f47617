"""``python -m sem.bench``: what ``sem bench`` runs, its operators' timings."""

import sys

from sem.bench.command import main
from sem.command_line import guarded

if __name__ == "__main__":
    sys.exit(guarded(main))
