"""``python -m sem`` is ``sem``."""

import sys

from sem.cli import main

if __name__ == "__main__":
    sys.exit(main())
