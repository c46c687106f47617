"""What a sweep says at its end, or half-way: ``summary.md``, ``summary.json`` and ``curves.png``."""

from __future__ import annotations

import dataclasses
import json
import math
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import combinations, groupby
from pathlib import Path
from typing import Any

from sem.extras import how_to_install
from sem.files import write_text
from sem.sweeps.arms import TRIAL
from sem.sweeps.experiment import Arm, Budget, Experiment, Figure, Run
from sem.sweeps.plot import plot_curves
from sem.sweeps.results import RunResult
from sem.sweeps.table import ArmRow, Spread, arm_row, budget_warnings, floors, markdown_table
from sem.sweeps.verdicts import FEWEST_SEEDS, SameRuns, Verdict, judge, same_runs

SUMMARY, SUMMARY_JSON, CURVES = "summary.md", "summary.json", "curves.png"
_MOST_PAIRS = 6


@dataclass(frozen=True)
class BestTrial:
    """The trial whose mean over the seeds is the best one.

    Attributes:
        arm: its name and what it sets.
        figure: by what it was judged.
        mean: over the seeds.
        spread: over the seeds.
        seeds: number of them.
    """

    arm: Arm
    figure: Figure
    mean: float
    spread: Spread
    seeds: int

    @property
    def text(self) -> str:
        """The trial in one line: its overrides, the mean and the spread."""
        return (
            f"{self.arm.name}: {' '.join(self.arm.overrides)}, {self.figure.label} {self.mean:.5g} in the mean of "
            f"{self.seeds} seed{'' if self.seeds == 1 else 's'} ({self.spread.low:.5g} to {self.spread.high:.5g})"
        )


@dataclass(frozen=True, kw_only=True)
class Summary:
    """A sweep's outcome, so far.

    Attributes:
        experiment: what was run.
        budget: of each run.
        arms: what each arm sets, trials of a search behind the others.
        results: of every arm, its runs by seed, in the order of ``arms``.
        runs: how each was run.
        jobs: runs at once.
        command: how the sweep was started.
        searched: the figure of a search, if there was one.
    """

    experiment: Experiment
    budget: Budget
    arms: Sequence[Arm]
    results: Sequence[Sequence[RunResult]]
    runs: Sequence[Run]
    jobs: int
    command: Sequence[str]
    searched: Figure | None = None
    same: SameRuns = field(init=False)
    rows: Sequence[ArmRow] = field(init=False)
    verdicts: Sequence[Verdict] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "same", same_runs([run for runs in self.results for run in runs]))
        object.__setattr__(self, "rows", [arm_row(runs, self.experiment) for runs in self.results])
        object.__setattr__(self, "verdicts", list(self._verdicts()))

    def _verdicts(self) -> Iterator[Verdict]:
        """On all pairs of arms; trials are chosen by the very runs that would judge them, and are left out."""
        compared = [runs for runs in self.results if not runs[0].arm.startswith(TRIAL)]
        questions: list[Figure | None] = [*self.experiment.figures]
        questions += [None] if self.experiment.collapsed is not None else []
        for question in questions:
            for a, b in combinations(compared, 2):
                yield judge(a, b, question, self.same)

    @property
    def finished(self) -> int:
        """Runs of all arms that are done."""
        return sum(row.finished for row in self.rows)

    @property
    def planned(self) -> int:
        """Runs of all arms, done or not."""
        return sum(row.planned for row in self.rows)

    @property
    def failed(self) -> list[RunResult]:
        """Every run that failed."""
        return [run for runs in self.results for run in runs if run.state == "failed"]

    @property
    def warnings(self) -> list[str]:
        """What speaks against a comparison: budgets or threads that differ, too few seeds. One sentence each."""
        told = budget_warnings(self.rows, self.budget)
        threads = sorted({run.threads for runs in self.results for run in runs if run.state == "finished"})
        if len(threads) > 1:
            told.append(f"not all runs had as many threads: {', '.join(map(str, threads))}")
        seeds = min((row.planned for row in self.rows), default=0)
        if self.verdicts and seeds < FEWEST_SEEDS:
            told.append(
                f"nothing is decided by {seeds} seed{'' if seeds == 1 else 's'}: at least {FEWEST_SEEDS} are needed"
            )
        return told

    @property
    def best(self) -> BestTrial | None:
        """Of the trials all of whose seeds are finished with finite figures."""
        if self.searched is None:
            return None
        found = []
        for arm, runs in zip(self.arms, self.results, strict=True):
            values = [run.figures.get(self.searched.name, math.nan) for run in runs if run.state == "finished"]
            spread = Spread.of(values)
            if arm.name.startswith(TRIAL) and spread and len(values) == len(runs) and all(map(math.isfinite, values)):
                found.append(BestTrial(arm, self.searched, sum(values) / len(values), spread, len(values)))
        sign = 1.0 if self.searched.better == "lower" else -1.0
        return min(found, key=lambda trial: sign * trial.mean, default=None)

    def lines(self) -> list[str]:
        """What to print: the same runs first, an arm a line, then the rest."""
        told = self.same.sentences
        for row in self.rows:
            figures = [f"{figure.label} {row.figures[figure.name] or '-'}" for figure in self.experiment.figures]
            collapsed = [] if row.collapsed is None else [f"collapsed {row.collapsed}/{row.finished}"]
            told.append(" | ".join([f"{row.arm} {row.finished}/{row.planned}", *figures, *collapsed]))
        told += [f"warning: {warning}" for warning in self.warnings]
        told += self._verdict_lines()
        told += [] if self.best is None else [f"best trial: {self.best.text}"]
        for run in self.failed:
            told += [f"failed: {run.arm} seed {run.seed}: {run.reason}", *(f"    {line}" for line in run.log[-5:])]
        return told

    def write(self, output: Path, *, curves: bool = True) -> str:
        """Write all of it into the sweep's folder; returns what could not be drawn and why, or nothing."""
        note = ""
        if curves:
            try:
                plot_curves(self.results, output / CURVES)
            except ImportError:
                note = f"no {CURVES}: {how_to_install('train')} for it"
        write_text(output / SUMMARY, self.markdown(picture=(output / CURVES).exists()))
        write_text(output / SUMMARY_JSON, json.dumps(_without_nonfinite(self.to_mapping()), indent=1) + "\n")
        return note

    def markdown(self, *, picture: bool = False) -> str:
        """``summary.md``; its first lines say which runs are the same, if any are."""
        lines = [f"**{sentence[0].upper()}{sentence[1:]}.**\n" for sentence in self.same.sentences]
        lines.append(f"# Sweep of {len(self.arms)} arms: {self.finished} of {self.planned} runs are finished\n")
        lines.append(self._circumstances() + "\n")
        lines += [f"> **Warning:** {warning}.\n" for warning in self.warnings]
        every = floors([run for runs in self.results for run in runs], self.experiment)
        lines.append("Medians over the seeds, with the smallest and the largest in brackets.\n")
        lines.append(markdown_table(self.rows, self.experiment, every))
        if self.best is not None:
            chosen = "chosen by these seeds: run it as an arm with other seeds to compare it"
            lines.append(f"## Best trial\n\n{self.best.text}; {chosen}.\n")
        if self.verdicts:
            lines.append("## Verdicts\n\n" + "\n".join(f"- {text}" for text in self._verdict_lines()) + "\n")
        if self.failed:
            lines.append("## Runs that failed\n")
            for run in self.failed:
                lines.append(f"{run.arm} seed {run.seed}: {run.reason}\n")
                if run.log:
                    lines.append("```text\n" + "\n".join(line.replace("```", "'''") for line in run.log) + "\n```\n")
        if picture:
            lines.append(f"![Training losses (thin) and validation losses (thick) of all seeds]({CURVES})\n")
        commands = [shlex.join(self.command)] if self.command else []
        firsts = [next(group) for _, group in groupby(self.runs, key=lambda run: run.arm.name)]
        commands += [shlex.join(run.command) for run in firsts]
        lines.append("## Commands\n\n```sh\n" + "\n".join(commands) + "\n```\n")
        return "\n".join(lines)

    def _circumstances(self) -> str:
        seeds = sorted({run.seed for runs in self.results for run in runs})
        threads = sorted({run.threads for runs in self.results for run in runs})
        at_once = "one run at a time" if self.jobs == 1 else f"{self.jobs} runs at once"
        each = f"{' or '.join(map(str, threads))} OpenMP thread{'' if threads == [1] else 's'} each"
        return (
            f"Budget of a run: {self.budget.text}. Seeds {', '.join(map(str, seeds))}; {at_once}, {each}. "
            "Seconds are those of training."
        )

    def _verdict_lines(self) -> Iterator[str]:
        """What was decided, each on a line; what was not, in one line for each question and reason."""
        open_pairs: dict[str, list[tuple[str, str]]] = {}
        for verdict in self.verdicts:
            if verdict.kind in ("better", "prevents"):
                yield verdict.text
                continue
            reason = f"{verdict.question}: {verdict.text.partition(f', {verdict.question}: ')[2]}"
            open_pairs.setdefault(reason, []).append(verdict.arms)
        for reason, pairs in open_pairs.items():
            yield f"{reason}: {_shown(pairs)}"

    def to_mapping(self) -> dict[str, Any]:
        """All of it as plain values."""
        return {
            "same_runs": self.same.sentences,
            "budget": dataclasses.asdict(self.budget),
            "warnings": self.warnings,
            "arms": [
                {"name": arm.name, "overrides": list(arm.overrides), **_row_mapping(row)}
                for arm, row in zip(self.arms, self.rows, strict=True)
            ],
            "floors": {
                name: spread and spread.to_mapping()
                for name, spread in floors([run for runs in self.results for run in runs], self.experiment).items()
            },
            "verdicts": [dataclasses.asdict(verdict) for verdict in self.verdicts],
            "best_trial": self.best and {"arm": self.best.arm.name, "mean": self.best.mean, "text": self.best.text},
            "runs": [_run_mapping(result) for runs in self.results for result in runs],
            "commands": [list(run.command) for run in self.runs],
        }


def _shown(pairs: Sequence[tuple[str, str]]) -> str:
    """Pairs of arms in few words: twelve arms have 66.

    Example:
        >>> _shown([("a", "b"), ("a", "c")]), _shown([("a", "b"), ("a", "c"), ("b", "c")])
        ('a and b; a and c', 'any two of a, b, c')
        >>> _shown([("a", name) for name in "bcdefgh"])
        '7 pairs, which summary.json names'
    """
    arms = list(dict.fromkeys(arm for pair in pairs for arm in pair))
    if len(arms) > 2 and len(pairs) == math.comb(len(arms), 2):
        return f"any two of {', '.join(arms)}"
    if len(pairs) > _MOST_PAIRS:
        return f"{len(pairs)} pairs, which {SUMMARY_JSON} names"
    return "; ".join(" and ".join(pair) for pair in pairs)


def _row_mapping(row: ArmRow) -> dict[str, Any]:
    content: dict[str, Any] = {}
    for item in dataclasses.fields(row):
        value = getattr(row, item.name)
        if isinstance(value, Spread):
            value = value.to_mapping()
        elif item.name == "figures":
            value = {name: spread and spread.to_mapping() for name, spread in value.items()}
        content[item.name] = value
    content.pop("arm")
    return content


def _run_mapping(run: RunResult) -> dict[str, Any]:
    content = {item.name: getattr(run, item.name) for item in dataclasses.fields(run)}
    del content["loss"], content["validation"]
    content["figures"] = dict(run.figures)
    return content | {"best_validation": run.best_validation, "final_validation": run.final_validation}


def _without_nonfinite(value: Any) -> Any:
    """``value`` with NaN and infinities as texts, which JSON has no numbers for."""
    if isinstance(value, float) and not math.isfinite(value):
        return repr(value)
    if isinstance(value, dict):
        return {key: _without_nonfinite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_without_nonfinite(item) for item in value]
    return value
