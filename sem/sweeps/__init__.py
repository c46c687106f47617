"""Sweeps: arms times seeds of runs, compared by rule; searches of numbers by Optuna.

Knows nothing of what is run: an :class:`Experiment` says how a run is started and what it leaves.

    >>> import sys, tempfile
    >>> from pathlib import Path
    >>> program = "import json, sys; json.dump({'error': 0.5}, open(sys.argv[1] + '/final.json', 'w'))"
    >>> experiment = Experiment(
    ...     command=lambda arm, seed, folder: [sys.executable, "-c", program, str(folder), *arm.overrides],
    ...     settings=lambda arm, seed: {"overrides": list(arm.overrides), "seed": seed},
    ...     figures=(Figure("error", "test error"),),
    ... )
    >>> folder = Path(tempfile.mkdtemp())
    >>> sweep = Sweep(experiment=experiment, arms=[Arm("plain")], seeds=[0], output=folder, budget=Budget(steps=1))
    >>> sweep.run().summary.rows[0].figures["error"].median  # doctest: +ELLIPSIS
    plain seed 0: running, left -:--:--
    plain seed 0: finished, 0.5 in ... s
    0.5
"""

from sem.sweeps.arms import read_arms
from sem.sweeps.experiment import Arm, Budget, Experiment, Figure, planned
from sem.sweeps.process import FolderInUse, StopLimits
from sem.sweeps.results import RunResult, read_final, read_history
from sem.sweeps.search import Parameter, Pruning, Search, read_search
from sem.sweeps.summary import BestTrial, Summary
from sem.sweeps.sweep import Sweep, SweepResult
from sem.sweeps.verdicts import SameRuns, Verdict, beats, judge, prevents_collapse, same_curve, same_runs

__all__ = [
    "Arm",
    "BestTrial",
    "Budget",
    "Experiment",
    "Figure",
    "FolderInUse",
    "Parameter",
    "Pruning",
    "RunResult",
    "SameRuns",
    "Search",
    "StopLimits",
    "Summary",
    "Sweep",
    "SweepResult",
    "Verdict",
    "beats",
    "judge",
    "planned",
    "prevents_collapse",
    "read_arms",
    "read_final",
    "read_history",
    "read_search",
    "same_curve",
    "same_runs",
]
