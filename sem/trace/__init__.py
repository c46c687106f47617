"""Named intermediate values of a computation, written in order at full precision, and where two of them part."""

from sem.trace.comparison import Comparison, compare
from sem.trace.files import read_trace
from sem.trace.record import Trace

__all__ = ["Comparison", "Trace", "compare", "read_trace"]
