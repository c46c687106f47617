"""Items for a reader process that does not end by itself."""

import os
import time


class Endless:
    """The reader's process id, again and again."""

    def __iter__(self):
        while True:
            yield os.getpid()


class Stuck:
    """One item, then nothing for a long time."""

    def __iter__(self):
        yield os.getpid()
        time.sleep(1000)
