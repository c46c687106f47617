"""Named intermediate values of a computation, written in order at full precision, and where two of them part."""

from sem.trace.comparison import Comparison, compare
from sem.trace.record import Trace, read_trace

__all__ = ["Comparison", "Trace", "compare", "read_trace"]
