"""When a run is to end: functions to give :meth:`sem.ptycho.Engine.run` as ``stop``.

Each takes the reports of all sweeps so far and remembers nothing, so that a resumed run ends where the whole one does.
A function of one's own does as well: ``stop=lambda reports: reports[-1].change < 1e-5``.
"""

from __future__ import annotations

from collections.abc import Sequence

from sem.ops.boundary import count
from sem.ptycho.engine import Stop, SweepReport


def after_sweeps(sweeps: int) -> Stop:
    """After so many sweeps in all.

    Example:
        >>> after_sweeps(1)([SweepReport(0, 1.0, 1.0, 1.0, 0.5)])
        True
    """
    count("sweeps", sweeps, least=1)
    return lambda reports: len(reports) >= sweeps


def after_seconds(seconds: float) -> Stop:
    """Once the sweeps have taken so many seconds in all; the last is finished.

    Raises:
        ValueError: a negative number.

    Example:
        >>> after_seconds(1.0)([SweepReport(0, 1.0, 1.0, 1.0, 0.5)])
        False
    """
    if not seconds >= 0:
        raise ValueError(f"seconds: expected a number >= 0, got {seconds}")
    return lambda reports: reports[-1].seconds >= seconds


def fits_noise(chi_squared: float = 1.0) -> Stop:
    """Once ``chi_squared`` is no larger: at 1 the reconstruction fits photon noise, and more sweeps fit the noise
    itself.

    Raises:
        ValueError: a number that is not above 0.

    Example:
        >>> fits_noise()([SweepReport(0, 1.0, 1.2, 1.0, 0.5)])
        False
    """
    if not chi_squared > 0:
        raise ValueError(f"chi_squared: expected a number > 0, got {chi_squared}")
    return lambda reports: reports[-1].chi_squared <= chi_squared


def plateau(sweeps: int = 5, share: float = 1e-3) -> Stop:
    """Once the least loss of the last ``sweeps`` is less than ``share`` below the least of those before.

    Raises:
        ValueError: fewer than one sweep, or a share that is not in [0, 1).

    Example:
        >>> stop = plateau(sweeps=1)
        >>> reports = [SweepReport(k, loss, 1.0, 0.0, 1.0) for k, loss in enumerate((4.0, 2.0, 1.9999))]
        >>> stop(reports[:2]), stop(reports)
        (False, True)
    """
    count("sweeps", sweeps, least=1)
    if not 0 <= share < 1:
        raise ValueError(f"share: expected a number >= 0, below 1, got {share}")

    def stop(reports: Sequence[SweepReport]) -> bool:
        if len(reports) <= sweeps:
            return False
        before = min(report.loss for report in reports[:-sweeps])
        return min(report.loss for report in reports[-sweeps:]) > (1 - share) * before

    return stop


def any_of(*stops: Stop) -> Stop:
    """Once one of them says so.

    Example:
        >>> any_of(after_sweeps(5), fits_noise())([SweepReport(0, 1.0, 0.9, 1.0, 0.5)])
        True
    """
    return lambda reports: any(stop(reports) for stop in stops)
