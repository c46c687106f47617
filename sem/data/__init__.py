"""Text in, batches out: corpora, the byte tokenizer, packing, resumable loaders, baselines to beat.

Example:
    >>> from sem.config import SEMConfig
    >>> from sem.data import build_loaders
    >>> config = SEMConfig().with_overrides("data.seq_length=64", "training.batch_size=4")
    >>> train, validation = build_loaders(config)
    >>> batch = next(train)
    >>> batch["tokens"].shape, batch["tokens"].dtype
    (torch.Size([4, 64]), torch.int64)
"""

from sem.data.baselines import ByteModel, baselines
from sem.data.corpus import Corpus, Documents, load_corpus
from sem.data.loader import EvalLoader, TrainLoader, build_loaders
from sem.data.packing import IGNORED_TARGET, PackedRows
from sem.data.tokenizer import BOS, EOS, PAD, VOCAB_SIZE, ByteTokenizer

__all__ = [
    "BOS",
    "EOS",
    "IGNORED_TARGET",
    "PAD",
    "VOCAB_SIZE",
    "ByteModel",
    "ByteTokenizer",
    "Corpus",
    "Documents",
    "EvalLoader",
    "PackedRows",
    "TrainLoader",
    "baselines",
    "build_loaders",
    "load_corpus",
]
