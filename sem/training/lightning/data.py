"""The training data of a run as a Lightning data module."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any

from lightning.pytorch import LightningDataModule

from sem.config import SEMConfig
from sem.data import Corpus, build_loaders
from sem.training.distributed import accumulation, merge_states
from sem.training.lightning.processes import processes_of


class SEMDataModule(LightningDataModule):
    """Rows of :mod:`sem.data`: a batch is the list of micro-batches of one optimizer step, an epoch is the whole run.

    The position in the data is part of each checkpoint, exact to the row. Processes share the data out among
    themselves, so a Trainer needs ``use_distributed_sampler=False``.

    Args:
        config: ``data`` and the batch sizes and ``max_steps`` of ``training`` are used.
        corpus: text that is loaded already.
        loaders: this process's training and validation loader, in place of new ones.

    Raises:
        ValueError: text is missing or too short, when training starts.
    """

    def __init__(
        self, config: SEMConfig, corpus: Corpus | None = None, *, loaders: tuple[Any, Any] | None = None
    ) -> None:
        super().__init__()
        self.config = config
        self.corpus = corpus
        self.loaders = loaders

    def setup(self, stage: str) -> None:
        """Open the data, once."""
        training = self.config.training
        assert self.trainer is not None
        self.ranks = processes_of(self.trainer, training.distributed_timeout)
        if self.loaders is None:
            self.loaders = build_loaders(
                self.config,
                self.corpus,
                batch_size=training.micro_batch_size,
                rank=self.ranks.rank,
                world_size=self.ranks.world_size,
            )
        self.train_batches: Any = self.loaders[0]
        self.validation_batches: Any = self.loaders[1]

    def train_dataloader(self) -> Iterable[list[Any]]:
        """One item per optimizer step, the list of its micro-batches. It has a length, so that Lightning does not fetch
        ahead."""
        training = self.config.training
        return _Steps(self, accumulation(training, self.ranks.world_size), training.max_steps)

    def val_dataloader(self) -> Iterable[Iterable[Any]]:
        """One item, all the batches of a validation."""
        training = self.config.training
        count = training.eval_batches * (training.batch_size // training.micro_batch_size)
        return _Validation(self.validation_batches, count)

    def state_dict(self) -> dict[str, Any]:
        """The position behind the last row trained on, of all processes."""
        return {"batches": merge_states(self.ranks.gather(self.train_batches.state_dict()))}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue with the row after the last one trained on.

        Raises:
            ValueError: the state belongs to other data.
        """
        self.train_batches.load_state_dict(state["batches"])


class _Steps:
    """The micro-batches of each step of a run.

    The length keeps Lightning from fetching ahead, which would make the loader's position run ahead of the training.
    """

    def __init__(self, data: SEMDataModule, accumulation: int, length: int) -> None:
        self._accumulation, self._length = accumulation, length
        self._batches = data.train_batches
        self.state_dict, self.load_state_dict = data.state_dict, data.load_state_dict

    def __len__(self) -> int:
        return self._length

    def __iter__(self) -> Iterator[list[Any]]:
        source = iter(self._batches)
        while True:
            yield list(islice(source, self._accumulation))


class _Validation:
    """A single item: an iterator over the first ``count`` batches, which Lightning leaves as it is."""

    def __init__(self, batches: Iterable[Any], count: int) -> None:
        self._batches, self._count = batches, count

    def __len__(self) -> int:
        return 1

    def __iter__(self) -> Iterator[Iterator[Any]]:
        yield islice(iter(self._batches), self._count)
