"""Shorter rows, or documents of some scores, in the first parts of a run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from sem.config_sections import Stage

ROWS = "curriculum_rows"
"""The entry of a loader's state that says where a run with a curriculum stands."""
_REST = Stage(1.0)


@dataclass(frozen=True)
class Plan:
    """Which stage a row belongs to: a matter of the rows that all ranks have been served before its batch alone, so
    that ranks and reader processes agree without a word.

    Attributes:
        stages: in rising order; behind the last one rows keep their length and scores do not matter.
        step_rows: rows of a step, over all ranks.
        max_steps: steps of the run.
    """

    stages: tuple[Stage, ...] = ()
    step_rows: int = 1
    max_steps: int = 1

    def at(self, rows: int) -> Stage:
        """The stage of a batch before which ``rows`` rows were served."""
        share = rows // self.step_rows / self.max_steps
        return next((stage for stage in self.stages if share < stage.until), _REST)

    @property
    def judges(self) -> bool:
        """Whether scores matter in any stage."""
        return any(stage.judges for stage in self.stages)


EVERYTHING = Plan()


class Curriculum:
    """The batches of a loader, in its stages with every row cut into shorter ones: as many tokens, in more rows.

    Rows are packed without gaps, so the pieces of one are the rows that packing at the shorter length gives. A step's
    batches all have the same length, on every rank; where a run stands is part of the loader's state. Which documents
    rows are made of is the loader's to heed, which has the same plan.

    Args:
        loader: of rows of full length.
        plan: its stages.

    Example:
        >>> from sem.data import Documents, TrainLoader
        >>> loader = TrainLoader(Documents.from_bytes([b"some text"] * 9), batch_size=2, seq_length=8)
        >>> batches = Curriculum(loader, Plan((Stage(0.5, 4),), step_rows=2, max_steps=4))
        >>> [list(next(batches)["tokens"].shape) for _ in range(4)]
        [[4, 4], [4, 4], [2, 8], [2, 8]]
    """

    def __init__(self, loader: Any, plan: Plan) -> None:
        self.loader = loader
        self.plan = plan

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return self

    def __next__(self) -> dict[str, Any]:
        length, batch = self.plan.at(self.loader.rows_served).length, next(self.loader)
        if length is None:
            return batch
        return {**batch, **{name: batch[name].reshape(-1, length) for name in ("tokens", "targets")}}

    def close(self) -> None:
        """End the loader's reader processes."""
        self.loader.close()

    def state_dict(self) -> dict[str, Any]:
        """The loader's, and the rows of full length that all ranks have been served."""
        return {**self.loader.state_dict(), ROWS: self.loader.rows_served}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue where a run stood, in the middle of a stage or not.

        Raises:
            ValueError: that run had no curriculum, or as the loader's.
        """
        if ROWS not in state:
            raise ValueError("training.curriculum: expected none, the run that goes on was begun without")
        self.loader.load_state_dict(state)
