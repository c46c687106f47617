"""Text in, batches out: corpora and streamed datasets, tokenizers, packing, resumable loaders, baselines to beat.

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
from sem.data.build import build_loaders
from sem.data.corpus import Corpus, Documents, load_corpus
from sem.data.loader import EvalLoader, TrainLoader
from sem.data.packing import IGNORED_TARGET, PackedRows
from sem.data.source import DataSourceError, open_source
from sem.data.streaming import StreamEvalLoader, StreamTrainLoader, read_sample
from sem.data.tokenizer import (
    BOS,
    EOS,
    PAD,
    VOCAB_SIZE,
    ByteTokenizer,
    Tokenizer,
    keep_tokenizer,
    load_tokenizer,
    tokenizer_of,
)

__all__ = [
    "BOS",
    "EOS",
    "IGNORED_TARGET",
    "PAD",
    "VOCAB_SIZE",
    "ByteModel",
    "ByteTokenizer",
    "Corpus",
    "DataSourceError",
    "Documents",
    "EvalLoader",
    "PackedRows",
    "StreamEvalLoader",
    "StreamTrainLoader",
    "Tokenizer",
    "TrainLoader",
    "baselines",
    "build_loaders",
    "keep_tokenizer",
    "load_corpus",
    "load_tokenizer",
    "open_source",
    "read_sample",
    "tokenizer_of",
]
