import sys

from sem.bench.command import main

if __name__ == "__main__":
    sys.exit(main())
