"""``python -m sem.train`` is ``sem train``."""

import sys

from sem.cli import main

if __name__ == "__main__":
    sys.exit(main(["train", *sys.argv[1:]]))
