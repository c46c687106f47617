"""The loaders of a run, as its configuration asks for them: of text in memory, or of a dataset that is streamed."""

from __future__ import annotations

from sem.config import SEMConfig
from sem.data.corpus import Corpus, load_corpus
from sem.data.curriculum import Curriculum, Plan
from sem.data.loader import EvalLoader, TrainLoader
from sem.data.source import open_source
from sem.data.streaming import StreamEvalLoader, StreamTrainLoader
from sem.data.tokenizer import Tokenizer, tokenizer_of


def build_loaders(
    config: SEMConfig,
    corpus: Corpus | None = None,
    *,
    batch_size: int | None = None,
    tokenizer: Tokenizer | None = None,
    rank: int = 0,
    world_size: int = 1,
) -> tuple[TrainLoader | StreamTrainLoader | Curriculum, EvalLoader | StreamEvalLoader]:
    """The training and the validation loader of a run; where ``data.dataset`` is set, they stream it, and
    with ``training.curriculum`` the first one cuts its rows and chooses its documents in stages.

    Args:
        config: ``data``, ``model`` and of ``training`` the batch size, the steps and the curriculum are used.
        corpus: the text, where it has been loaded already; it goes before ``data.dataset``.
        batch_size: rows per batch, in place of ``training.batch_size``.
        tokenizer: in place of ``data.tokenizer``, where it has been loaded already.
        rank, world_size: which process of a distributed run this is, of how many.

    Raises:
        ValueError: text that is missing or too short, text in memory with a stage by score, or a tokenizer that
            does not fit; see :func:`sem.data.corpus.load_corpus`, :func:`sem.data.source.open_source` and
            :func:`sem.data.tokenizer.tokenizer_of`.

    Returns:
        Two sources of batches as :mod:`sem.data.loader` describes them; that of training is endless and resumable.
    """
    data, training = config.data, config.training
    plan = Plan(training.stages, training.batch_size, training.max_steps)
    rows = config.training.batch_size if batch_size is None else batch_size
    tokenizer = tokenizer or tokenizer_of(config)
    place = {"rank": rank, "world_size": world_size}
    train: TrainLoader | StreamTrainLoader
    validation: EvalLoader | StreamEvalLoader
    if corpus is None and data.dataset is not None:
        source = open_source(data)
        train = StreamTrainLoader(source, tokenizer, data, rows, config.seq_length, plan=plan, **place)
        validation = StreamEvalLoader(source, tokenizer, data, rows, config.seq_length)
    else:
        if plan.judges:
            raise ValueError(
                f"training.curriculum = {list(training.curriculum)}: "
                "expected stages without scores, text in memory has none"
            )
        if corpus is None:
            corpus = load_corpus(data.paths, corpus=data.corpus, validation_share=data.validation_share)
        corpus = corpus.encoded(tokenizer)
        train = TrainLoader(corpus.train, rows, config.seq_length, data.shuffle_seed, **place)
        validation = EvalLoader(corpus.validation, rows, config.seq_length)
    return (Curriculum(train, plan) if plan.stages else train), validation
