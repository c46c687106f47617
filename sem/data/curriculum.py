"""Shorter rows in the first part of a run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from sem.config_sections import Stage

_ROWS = "curriculum_rows"


class Curriculum:
    """The batches of a loader, in its stages with every row cut into shorter ones: as many tokens, in more rows.

    Rows are packed without gaps, so the pieces of one are the rows that packing at the shorter length gives. A step's
    batches all have the same length, on every rank; where a run stands is part of the loader's state.

    Args:
        loader: of rows of full length.
        stages: in rising order; behind the last one rows keep their length.
        step_rows: rows of a step, over all ranks.
        batch_rows: rows of a batch, over all ranks.
        max_steps: steps of the run.

    Example:
        >>> from sem.data import Documents, TrainLoader
        >>> loader = TrainLoader(Documents.from_bytes([b"some text"] * 9), batch_size=2, seq_length=8)
        >>> batches = Curriculum(loader, [Stage(0.5, 4)], step_rows=2, batch_rows=2, max_steps=4)
        >>> [list(next(batches)["tokens"].shape) for _ in range(4)]
        [[4, 4], [4, 4], [2, 8], [2, 8]]
    """

    def __init__(
        self, loader: Any, stages: Sequence[Stage], *, step_rows: int, batch_rows: int, max_steps: int
    ) -> None:
        self.loader = loader
        self.stages = tuple(stages)
        self._step_rows, self._batch_rows, self._max_steps = step_rows, batch_rows, max_steps
        self._rows = 0

    @property
    def length(self) -> int | None:
        """Tokens per row of the next batch; None where rows keep their length."""
        share = self._rows // self._step_rows / self._max_steps
        return next((stage.length for stage in self.stages if share < stage.until), None)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return self

    def __next__(self) -> dict[str, Any]:
        length, batch = self.length, next(self.loader)
        self._rows += self._batch_rows
        if length is None:
            return batch
        return {**batch, **{name: batch[name].reshape(-1, length) for name in ("tokens", "targets")}}

    def close(self) -> None:
        """End the loader's reader processes."""
        self.loader.close()

    def state_dict(self) -> dict[str, Any]:
        """The loader's, and the rows of full length that all ranks have been served."""
        return {**self.loader.state_dict(), _ROWS: self._rows}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue where a run stood, in the middle of a stage or not.

        Raises:
            ValueError: that run had no curriculum, or as the loader's.
        """
        if _ROWS not in state:
            raise ValueError("training.curriculum: expected none, the run that goes on was begun without")
        self.loader.load_state_dict(state)
        self._rows = state[_ROWS]
