"""One reader's share of a dataset as an endless stream of rows, and the few numbers that say where it stands.

All ranks and all reader processes of a run count as lanes of one road: in each epoch every document that is not held
out belongs to exactly one lane. The order is a pure function of the seed, the epoch and the position: shards are
shuffled anew in each epoch, and documents within blocks of ``data.shuffle_buffer`` of them. So nothing of the shuffle
buffer has to be saved: it is read again from where its block begins. A curriculum's stages change nothing of
that: their documents are chosen among those in this order, when a row comes to them.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from itertools import islice
from typing import NamedTuple

import numpy as np

from sem.config_sections import DataConfig, Stage
from sem.data.curriculum import EVERYTHING, Plan
from sem.data.source import Attempts, Position, Record, Source, read_shard
from sem.data.tokenizer import Tokenizer

_MOST_EMPTY_EPOCHS = 8
_MANY = 100_000  # documents in a row after which a lane that takes none of them says so

logger = logging.getLogger(__name__)


@dataclass
class LaneState:
    """Where a lane stands: at a token of a document of a block, which begins at a position of the dataset.

    Attributes:
        epoch: passes over the dataset that are finished.
        block: blocks of this epoch that are finished.
        shard: place of the block's first shard in the lane's order.
        part, row: position in that shard where the block begins.
        document: place in the shuffled block.
        token: targets of that document that were handed out.
    """

    epoch: int = 0
    block: int = 0
    shard: int = 0
    part: int = 0
    row: int = 0
    document: int = 0
    token: int = 0


class Batch(NamedTuple):
    """Rows, and the lane's state behind them.

    Attributes:
        tokens, targets: int64 `[B, S]`.
        state: as :class:`LaneState` holds it.
    """

    tokens: np.ndarray
    targets: np.ndarray
    state: dict[str, int]


@dataclass(frozen=True, kw_only=True)
class Lane:
    """What a reader needs to begin anywhere; iterating it gives endless batches.

    Args:
        source: the dataset.
        tokenizer: makes ids of text.
        config: filter, held-out share, shuffling and retries.
        batch_size, seq_length: shape of a batch.
        number, count: which lane this is, of how many.
        state: where to begin.
        plan: which documents a row takes, by the rows that all lanes have served before its batch.
        rows: how many those are before this lane's first batch.

    Raises:
        ValueError: while iterating, where the lane finds no document in several epochs.
    """

    source: Source
    tokenizer: Tokenizer
    config: DataConfig
    batch_size: int
    seq_length: int
    number: int = 0
    count: int = 1
    state: LaneState = field(default_factory=LaneState)
    plan: Plan = EVERYTHING
    rows: int = 0

    def __iter__(self) -> Iterator[Batch]:
        targets, rows = _TargetStream(self), self.rows
        while True:
            stage = self.plan.at(rows)
            stream = np.empty((self.batch_size, self.seq_length + 1), np.int64)
            for line in stream:
                targets.fill(line, stage if stage.judges else None)
            yield Batch(stream[:, :-1], stream[:, 1:].copy(), asdict(targets.state))
            rows += self.batch_size * self.count  # in turn with the other lanes

    def documents(self, epoch: int, begin: LaneState) -> Iterator[tuple[str, float | None, tuple[int, int, int]]]:
        """The rest of an epoch, whatever the plan: each text of this lane, its score, and ``(shard, part, row)``
        behind it."""
        shards = np.random.default_rng([self.config.shuffle_seed, epoch]).permutation(self.source.num_shards)
        # Shards are shared out where there are enough of them, else every lane reads all and takes its rows.
        by_shard = len(shards) >= self.count
        if by_shard:
            shards = shards[self.number :: self.count]
        attempts = Attempts(self.source.name, self.config.retries)
        position, judged = Position(begin.part, begin.row), self.plan.judges
        for index in range(begin.shard, len(shards)):
            for record in read_shard(self.source, int(shards[index]), position, attempts):
                mine = by_shard or sum(record.behind) % self.count == self.number
                if not mine:
                    continue
                text = usable_text(record, self.config, judged=judged)
                if text and not is_held_out(text, self.config):
                    yield text, record.score, (index, *record.behind)
            position = Position()


class _TargetStream:
    """The targets of a lane from its state on, document after document."""

    def __init__(self, lane: Lane) -> None:
        self.lane = lane
        self._place = f"data.dataset = {lane.source.name!r}: reader {lane.number + 1} of {lane.count}"
        self.state = LaneState(**asdict(lane.state))
        self._documents = lane.documents(self.state.epoch, self.state)
        self._read_block()
        if self.state.token:
            self._tokenize()

    def fill(self, line: np.ndarray, stage: Stage | None) -> None:
        """Write a row of targets and, in front, the token before them; of the documents that begin in it, those that
        the stage reads, where there is one that judges scores."""
        line[0] = self._targets[self.state.token - 1] if self.state.token else self.lane.tokenizer.eos
        filled = 1
        while filled < len(line):
            if self.state.token == 0:
                if stage is not None:
                    self._pass_over(stage)
                self._tokenize()
            piece = self._targets[self.state.token :][: len(line) - filled]
            line[filled : filled + len(piece)] = piece
            filled += len(piece)
            self.state.token += len(piece)
            if self.state.token == len(self._targets):
                self._next_document()

    def _pass_over(self, stage: Stage) -> None:
        """Go on to a document that the stage reads; others are not tokenized, and come again in the next epoch."""
        passed, last = 0, self.state.epoch + _MOST_EMPTY_EPOCHS
        while not stage.reads(self._scores[self._order[self.state.document]]):
            self._next_document()
            passed += 1
            if self.state.epoch > last:
                raise ValueError(
                    f"{self._place} found no text with {stage.scores} in {_MOST_EMPTY_EPOCHS} epochs; change that "
                    "stage of training.curriculum, lower data.num_workers, or give more data"
                )
            if passed % _MANY == 0:
                logger.warning("%s passed over %d documents in a row, none has %s", self._place, passed, stage.scores)

    def _next_document(self) -> None:
        state = self.state
        state.token = 0
        state.document += 1
        if state.document == len(self._block):
            state.document = 0
            state.block += 1
            state.shard, state.part, state.row = self._behind
            self._read_block()

    def _tokenize(self) -> None:
        text = self._block[self._order[self.state.document]]
        self._targets = np.array([*self.lane.tokenizer.encode(text), self.lane.tokenizer.eos], np.int64)

    def _read_block(self) -> None:
        """The documents among which the next are drawn, from this epoch or, where it has no more, from the next."""
        lane, state = self.lane, self.state
        for _ in range(_MOST_EMPTY_EPOCHS):
            entries = list(islice(self._documents, lane.config.shuffle_buffer))
            if entries:
                self._block = [text for text, _, _ in entries]
                self._scores = [score for _, score, _ in entries]
                self._behind = entries[-1][2]
                seed = [lane.config.shuffle_seed, state.epoch, lane.number, state.block]
                self._order = np.random.default_rng(seed).permutation(len(entries))
                return
            self.state = state = LaneState(epoch=state.epoch + 1)
            self._documents = lane.documents(state.epoch, state)
        raise ValueError(
            f"{self._place} found no text to train on in {_MOST_EMPTY_EPOCHS} epochs; "
            "lower data.min_score or data.num_workers, or give more data"
        )


def usable_text(record: Record, config: DataConfig, *, judged: bool = False) -> str | None:
    """The record's text, None where it is empty or its score below ``config.min_score``.

    Args:
        judged: the score is asked for later, also where there is no ``config.min_score``.

    Raises:
        ValueError: the score is asked for and no number.
    """
    score = record.score
    asked = judged or config.min_score is not None
    if asked and score is not None and not isinstance(score, (int, float)):
        place = f" in {record.place}" if record.place else ""
        raise ValueError(f"data.score_field = {config.score_field!r}: expected numbers, got {score!r}{place}")
    if config.min_score is not None and (score is None or not score >= config.min_score):  # NaN is none
        return None
    return record.text or None


def is_held_out(text: str, config: DataConfig) -> bool:
    """Whether ``text`` is for validation: a matter of its hash alone, the same on every machine and in every epoch."""
    digest = hashlib.blake2b(text.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") < config.validation_share * 2.0**64
