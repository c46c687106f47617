"""Loaders over a dataset that is streamed: batches as in :mod:`sem.data.loader`, resumable to the token."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from sem.config_sections import DataConfig
from sem.data.corpus import Corpus, Documents
from sem.data.curriculum import EVERYTHING, ROWS, Plan
from sem.data.lane import Batch, Lane, LaneState, is_held_out, usable_text
from sem.data.loader import EvalLoader, as_batch, check_rank, check_shape
from sem.data.reader import ReaderProcess
from sem.data.source import CONTENT, Attempts, Position, Source, open_source, read_shard
from sem.data.tokenizer import Tokenizer


class StreamTrainLoader:
    """Endless batches of a streamed dataset, this rank's share of it.

    Documents are packed end to end with a boundary after each; no row is padded and no token left out, epochs follow
    each other without a gap. With reader processes, batches come from them in turn.

    Args:
        source: the dataset.
        tokenizer: makes ids of text.
        config: filter, held-out share, shuffling, retries and reader processes.
        batch_size: rows per batch.
        seq_length: tokens per row.
        plan: which documents a row takes, by the rows served before it; a :class:`Curriculum` keeps their count.
        rank, world_size: which process of a distributed run this is, of how many.

    Raises:
        ValueError: a size is not positive, or the rank is not one of the world's.
    """

    def __init__(
        self,
        source: Source,
        tokenizer: Tokenizer,
        config: DataConfig,
        batch_size: int,
        seq_length: int,
        *,
        plan: Plan = EVERYTHING,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        check_shape(batch_size, seq_length)
        check_rank(rank, world_size)
        self.source = source
        self.tokenizer = tokenizer
        self.config = config
        self.batch_size = batch_size
        self.seq_length = seq_length
        self.plan = plan
        self.rank = rank
        self.world_size = world_size
        self._rows = 0
        self._states = [LaneState() for _ in range(max(1, config.num_workers))]
        self._turn = 0
        self._readers: list[Iterator[Batch]] = []

    @property
    def rows_served(self) -> int:
        """Rows that all ranks have been served."""
        return self._rows

    @property
    def epoch(self) -> int:
        """Epochs finished by the reader that is behind the others."""
        return min(state.epoch for state in self._states)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return self

    def __next__(self) -> dict[str, Any]:
        if not self._readers:
            self._readers = [self._open(index) for index in range(len(self._states))]
        batch = next(self._readers[self._turn])
        self._states[self._turn] = LaneState(**batch.state)
        self._turn = (self._turn + 1) % len(self._states)
        self._rows += self.batch_size * self.world_size
        return as_batch(batch.tokens, batch.targets, self.tokenizer)

    def state_dict(self) -> dict[str, Any]:
        """This rank's position behind the last batch handed out, and what must be the same for it to mean the same."""
        position = {"turn": self._turn, "readers": [dict(vars(state)) for state in self._states]}
        return {"identity": self._identity(), "ranks": {str(self.rank): position}}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue behind the last batch handed out; ``batch_size`` may differ.

        Args:
            state: of this rank, or those of all ranks with their ``ranks`` joined.

        Raises:
            ValueError: it belongs to other data, another tokenizer, order, row length or number of readers.
        """
        if "identity" not in state:
            raise ValueError("the saved data position is of text in memory: expected one of a streamed dataset")
        saved, own = state["identity"], self._identity()
        compared = [name for name in {**own, **saved} if name != CONTENT or name in saved]
        names = [name for name in compared if saved.get(name) != own.get(name)]
        if names:
            pairs = "; ".join(f"{name}: saved {saved.get(name)}, now {own.get(name)}" for name in names)
            raise ValueError(f"the saved data position does not fit this run's data: {pairs}")
        if str(self.rank) not in state["ranks"]:
            there = ", ".join(state["ranks"])
            raise ValueError(f"the saved data position is of rank {there}: expected one of rank {self.rank}")
        position = state["ranks"][str(self.rank)]
        self.close()
        self._rows = state.get(ROWS, 0)
        self._turn = position["turn"]
        self._states = [LaneState(**entries) for entries in position["readers"]]

    def close(self) -> None:
        """End the reader processes; the next batch starts them again, behind the last one handed out."""
        for reader in self._readers:
            if isinstance(reader, ReaderProcess):
                reader.close()
        self._readers = []

    def _open(self, index: int) -> Iterator[Batch]:
        count = len(self._states)
        lane = Lane(
            source=self.source,
            tokenizer=self.tokenizer,
            config=self.config,
            batch_size=self.batch_size,
            seq_length=self.seq_length,
            number=self.rank * count + index,
            count=self.world_size * count,
            state=self._states[index],
            plan=self.plan,
            rows=self._rows + (index - self._turn) % count * self.batch_size * self.world_size,
        )
        return ReaderProcess(lane, f"data.dataset = {self.source.name!r}") if self.config.num_workers else iter(lane)

    def _identity(self) -> dict[str, Any]:
        config = self.config
        names = ("text_field", "score_field", "min_score", "validation_share", "shuffle_buffer", "shuffle_seed")
        return {
            **self.source.identity,
            **{name: getattr(config, name) for name in names},
            "seq_length": self.seq_length,
            "tokenizer": self.tokenizer.identity,
            "world_size": self.world_size,
            "readers": len(self._states),
        }


class StreamEvalLoader:
    """The held-out documents of a streamed dataset, read when first asked for; the same batches at every pass.

    Args:
        config: ``validation_documents`` of the held-out ones are taken, in the order of the dataset.

    Raises:
        ValueError: when asked for, where there is too little held-out text for one row.
    """

    def __init__(
        self, source: Source, tokenizer: Tokenizer, config: DataConfig, batch_size: int, seq_length: int
    ) -> None:
        self.source = source
        self.tokenizer = tokenizer
        self.config = config
        self.batch_size = batch_size
        self.seq_length = seq_length
        self._loader: EvalLoader | None = None

    def __len__(self) -> int:
        return len(self._opened())

    @property
    def num_rows(self) -> int:
        """Rows of a whole pass."""
        return self._opened().num_rows

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return iter(self._opened())

    def _opened(self) -> EvalLoader:
        if self._loader is None:
            texts = iterate_texts(self.source, self.config, self.config.validation_documents, held_out=True)
            documents = Documents.from_bytes(text.encode() for text in texts)
            self._loader = EvalLoader(documents.encoded(self.tokenizer), self.batch_size, self.seq_length)
        return self._loader


def iterate_texts(source: Source, config: DataConfig, limit: int, *, held_out: bool) -> Iterator[str]:
    """The first ``limit`` usable texts of the dataset, in its own order, that are held out or are not."""
    attempts = Attempts(source.name, config.retries)
    for shard in range(source.num_shards):
        for record in read_shard(source, shard, Position(), attempts):
            text = usable_text(record, config)
            if text and is_held_out(text, config) == held_out:
                yield text
                limit -= 1
                if limit == 0:
                    return


def read_sample(config: DataConfig, documents: int = 2_000) -> Corpus:
    """The held-out documents that are scored, and the first ``documents`` others, as bytes in memory.

    Raises:
        ValueError, DataSourceError, ImportError: as :func:`sem.data.source.open_source`.
    """
    source = open_source(config)

    def read(limit: int, held_out: bool) -> Documents:
        return Documents.from_bytes(text.encode() for text in iterate_texts(source, config, limit, held_out=held_out))

    return Corpus(train=read(documents, False), validation=read(config.validation_documents, True))
