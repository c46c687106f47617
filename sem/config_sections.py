"""The sections of a configuration: one class per section, one line per setting.

:mod:`sem.config` composes them. A default, its allowed range and its line of help stand together; the checks, the
command line's options and the documentation are derived from them.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, Literal, NamedTuple

from sem.optimization_settings import OptimizerName, ScheduleName
from sem.run_settings import RunSettings
from sem.settings import SEED_LIMIT, Section, setting, with_default

TOKENIZER_SIZES = {"bytes": 260}
"""Number of token ids each built-in tokenizer can produce; ``model.vocab_size`` may be larger, never smaller."""
_NUMBER = r"(?:\d+\.?\d*|\.\d+)"
_STAGE = re.compile(rf"(.+) until ({_NUMBER})")
_CONDITION = re.compile(rf"([1-9]\d*)|score (>=|<=) (-?{_NUMBER})")


@dataclass(frozen=True, kw_only=True)
class ModelConfig(Section):
    """Sizes shared by all stages."""

    section: ClassVar[str] = "model"
    hidden_dim: int = setting(256, "complex width D of the hidden state", ge=2)
    num_layers: int = setting(8, "number of spinor layers", ge=1)
    vocab_size: int = setting(260, "number of token ids V, at least the tokenizer's", ge=2)
    max_seq_length: int = setting(2048, "longest sequence in tokens", ge=1)
    layout: Literal["interleaved", "stacked"] = setting(
        "interleaved", "propagator layers between the spinor layers, or all behind them"
    )


@dataclass(frozen=True, kw_only=True)
class EncoderConfig(Section):
    """What makes waves of tokens: a learned wave of each, or entropic transport onto prototypes."""

    section: ClassVar[str] = "encoder"
    kind: Literal["embedding", "transport"] = setting("embedding", "a learned wave per token, or entropic transport")
    direct: bool = setting(True, "with transport: add a learned wave per token to the transport's")
    carrier: Literal["none", "absolute", "demodulated"] = setting(
        "none", "turn every channel by its position; demodulated: and back before the head"
    )
    sdr_sparsity: int = setting(32, "k: the k-th largest plan entry becomes the zero level", ge=2)
    sdr_candidates: int = setting(128, "number of learned prototypes M", ge=2)
    sinkhorn_epsilon: float = setting(0.05, "entropic temperature", gt=0)
    sinkhorn_max_iter: int = setting(50, "most transport iterations per token", ge=1)
    sinkhorn_tol: float = setting(1e-3, "change of the potentials at which a token's iteration stops", gt=0)
    projection_dim: int = setting(64, "width in which token and prototype are compared", ge=1)
    frequency_weighting: bool = setting(False, "divide the cost by log(token frequency + e)")

    def cross_checks(self) -> Iterator[str]:
        if self.sdr_sparsity > self.sdr_candidates:
            yield (
                f"encoder.sdr_sparsity = {self.sdr_sparsity}: "
                f"expected at most encoder.sdr_candidates = {self.sdr_candidates}"
            )


@dataclass(frozen=True, kw_only=True)
class SpinorConfig(Section):
    """Complex selective state-space layers along the sequence."""

    section: ClassVar[str] = "spinor"
    rotation: bool = setting(False, "gated block rotation in front of the convolution")
    block_size: int = setting(8, "side of the blocks of the gated rotation", ge=1)
    output_gate: bool = setting(True, "gate each channel behind the scan by the layer's input")
    projection: Literal["widely_linear", "complex"] = setting(
        "widely_linear", "last map of a layer: W z + V conj(z), or W z, which costs the same"
    )
    state_dim: int = setting(128, "complex states per group", ge=1)
    mimo_groups: int = setting(16, "number of scan groups G", ge=1)
    d_conv: int = setting(4, "width in tokens of the causal convolution", ge=1)


@dataclass(frozen=True, kw_only=True)
class PropagatorConfig(Section):
    """Nonlinear phase step and unitary Cayley step within each token."""

    section: ClassVar[str] = "propagator"
    num_layers: int | None = setting(None, "number of propagator layers; null: model.num_layers", ge=0)
    potential: Literal["linear", "none"] = setting("linear", "phase per channel that depends on the whole token")
    echo: bool = setting(False, "move forward in time in front of the phases and back behind them")
    cayley_dt: float = setting(0.3, "time step dt of the unitary step", gt=0)
    cg_max_iter: int = setting(50, "most conjugate-gradient iterations per token", ge=1)
    cg_tol: float = setting(1e-5, "relative residual at which a token's solve is converged", gt=0, lt=1)
    kerr: float = setting(0.5, "initial Kerr rotation in radians at mean intensity", formerly="nonlinear_alpha")
    laplacian_sparsity: int = setting(8, "mean node degree of the finest graph scale", ge=2)
    long_range_share: float = setting(0.25, "share of the edges spent on long-range edges", ge=0, le=1)
    num_scales: int = setting(3, "graph scales, of sparsity s, 2s, 4s, ...", ge=1)
    pit_enabled: bool = setting(False, "equalise the phase density before each unitary step")
    pit_num_bins: int = setting(32, "bins of the phase density on the circle", ge=4)
    pit_strength_init: float = setting(0.01, "initial bound of a phase shift, in kernel widths", ge=0, le=1)
    pit_rule: Literal["score", "density_ratio"] = setting("score", "how a phase is moved")


@dataclass(frozen=True, kw_only=True)
class SamplerConfig(Section):
    """The head, which reads probabilities of the next token out of a wave by Born's rule."""

    section: ClassVar[str] = "sampler"
    kind: Literal["coherent", "born"] = setting("coherent", "read-out states: coherent states, or amplitudes W psi")


@dataclass(frozen=True, kw_only=True)
class DataConfig(Section):
    """Where the text comes from and how it is cut into rows."""

    section: ClassVar[str] = "data"
    corpus: Literal["stdlib"] = setting("stdlib", "built-in corpus: the running Python's own library source")
    paths: tuple[str, ...] = setting((), "files, folders and globs that replace the corpus")
    dataset: str | None = setting(None, "streamed dataset: a name on the hub, or a folder or glob of parquet or jsonl")
    dataset_config: str | None = setting(None, "subset of the dataset, such as sample-10BT")
    dataset_split: str = setting("train", "split of the dataset that is trained on", pattern=".+")
    dataset_revision: str | None = setting(None, "commit or tag of the dataset; null: the newest")
    text_field: str = setting("text", "field of a record that holds its text", pattern=".+")
    score_field: str | None = setting(None, "field of a record that holds its quality score")
    min_score: float | None = setting(None, "records with a lower score are left out")
    bad_rows: Literal["refuse", "skip"] = setting("refuse", "what to do about a row of a stream that is no record")
    shuffle_buffer: int = setting(10_000, "documents of a stream that are shuffled together; 1: as they come", ge=1)
    validation_documents: int = setting(256, "most held-out documents of a stream that are scored", ge=1)
    retries: int = setting(8, "attempts in a row, ever further apart, to go on after a stream failed", ge=0)
    num_workers: int = setting(0, "processes that read a stream ahead; 0: none", ge=0)
    validation_share: float = setting(0.05, "share of the text held out for validation", gt=0, lt=1)
    seq_length: int | None = setting(None, "tokens per row; null: model.max_seq_length", ge=1)
    tokenizer: str = setting("bytes", "'bytes', or a file that the tokenizers library reads", pattern=".+")
    shuffle_seed: int = setting(0, "seed of the order of documents and rows", ge=0, le=SEED_LIMIT)

    @property
    def text(self) -> str:
        """Which text it is, in words."""
        return self.dataset or ", ".join(self.paths) or self.corpus

    def cross_checks(self) -> Iterator[str]:
        if self.dataset is not None and self.paths:
            yield f"data.paths = {list(self.paths)}: expected none beside data.dataset = {self.dataset!r}"
        if self.min_score is not None and self.score_field is None:
            yield f"data.min_score = {self.min_score}: expected data.score_field to name the field it judges"


class Stage(NamedTuple):
    """What is different in each step that begins before a share of a run's steps.

    Attributes:
        until: the share.
        length: tokens per row; None: rows keep their length.
        least, most: documents with a lower or a higher score, or with none, are not read; where neither bound is
            given, scores do not matter.

    Example:
        >>> stage = Stage.parse("128 and score >= 3 until 0.4")
        >>> stage.until, stage.length, stage.reads(3), stage.reads(2.9), stage.reads(None)
        (0.4, 128, True, False, False)
    """

    until: float
    length: int | None = None
    least: float = -math.inf
    most: float = math.inf

    @classmethod
    def parse(cls, text: str) -> Stage:
        """The stage that ``text`` describes.

        Raises:
            ValueError: it describes none.
        """
        whole = _STAGE.fullmatch(text)
        found = [_CONDITION.fullmatch(part) for part in whole[1].split(" and ")] if whole else []
        given = {part[2] or "": part[1] or part[3] for part in found if part}
        if whole is None or len(given) < len(found):  # something else, or one of them twice
            words = "'128 until 0.3', 'score >= 3 until 0.3' or '128 and score >= 3 until 0.3'"
            raise ValueError(f"expected texts like {words}")
        length = int(given[""]) if "" in given else None
        return cls(float(whole[2]), length, float(given.get(">=", -math.inf)), float(given.get("<=", math.inf)))

    @property
    def scores(self) -> str:
        """Which scores are read, in words; empty where they do not matter."""
        bounds = ((">=", self.least), ("<=", self.most))
        return " and ".join(f"score {sign} {bound:.15g}" for sign, bound in bounds if math.isfinite(bound))

    @property
    def judges(self) -> bool:
        """Whether scores matter."""
        return self.least > -math.inf or self.most < math.inf

    def reads(self, score: float | None) -> bool:
        """Whether a document with this score is read."""
        return not self.judges or (score is not None and self.least <= score <= self.most)  # NaN is none


@dataclass(frozen=True, kw_only=True)
class TrainingConfig(RunSettings):
    """Optimisation, schedule, precision, health, logging and checkpoints."""

    section: ClassVar[str] = "training"
    optimizer: OptimizerName = with_default(RunSettings, "optimizer", "muon")
    learning_rate: float = with_default(RunSettings, "learning_rate", 1.2e-3)
    weight_decay: float = with_default(RunSettings, "weight_decay", 0.1)
    beta2: float = with_default(RunSettings, "beta2", 0.95)
    gradient_clip: float = with_default(RunSettings, "gradient_clip", 1.0)
    scheduler: ScheduleName = with_default(RunSettings, "scheduler", "wsd")
    warmup_steps: int = with_default(RunSettings, "warmup_steps", 1000)
    max_steps: int = with_default(RunSettings, "max_steps", 100_000)
    decay_steps: int = with_default(RunSettings, "decay_steps", 10_000)
    lr_min_ratio: float = with_default(RunSettings, "lr_min_ratio", 0.1)
    adapt_threads: bool = with_default(RunSettings, "adapt_threads", True)
    unitary_lambda: float = setting(0.01, "weight of the unitary divergence in the loss", ge=0)
    eval_batches: int = setting(20, "batches per validation", ge=1)
    final_eval_batches: int | None = setting(
        None, "batches of the validation at the end; null: all held-out text", ge=1
    )
    dtype: Literal["float32"] = setting("float32", "dtype of parameters and optimizer state")
    compile: bool = setting(False, "run the model through torch.compile")
    curriculum: tuple[str, ...] = setting(
        (),
        "shorter rows or documents of some scores at first, '128 and score >= 3 until 0.3': tokens per row and which "
        "scores, or one of them, up to which share of max_steps, in rising order",
    )

    @property
    def stages(self) -> tuple[Stage, ...]:
        """What ``curriculum`` says."""
        return tuple(map(Stage.parse, self.curriculum))

    def cross_checks(self) -> Iterator[str]:
        yield from super().cross_checks()
        try:
            shares = [0.0, *(stage.until for stage in self.stages)]
        except ValueError as error:
            yield f"training.curriculum = {list(self.curriculum)}: {error}"
            return
        if shares[-1] > 1 or any(later <= earlier for earlier, later in zip(shares, shares[1:], strict=False)):
            yield f"training.curriculum = {list(self.curriculum)}: expected rising shares above 0 and up to 1"


@dataclass(frozen=True, kw_only=True)
class DistillationConfig(Section):
    """Learning from a trained model beside the text."""

    section: ClassVar[str] = "distillation"
    teacher: str | None = setting(
        None,
        "run's folder or checkpoint, or a transformers model's folder or owner/name on the hub, of the same tokenizer; "
        "null: none",
        pattern=".+",
    )
    temperature: float = setting(2.0, "both models' log-probabilities are divided by it, to be compared", ge=0.01)
    weight: float = setting(0.5, "share of the teacher in the loss; the text has the rest", ge=0, le=1)


@dataclass(frozen=True, kw_only=True)
class GenerationConfig(Section):
    """Sampling of new text."""

    section: ClassVar[str] = "generation"
    max_new_tokens: int = setting(256, "most tokens to generate", ge=1)
    temperature: float = setting(1.0, "sharpness of the draw; 0: always the likeliest token", ge=0)
    top_k: int = setting(0, "draw from the k likeliest tokens; 0: off", ge=0)
    top_p: float = setting(1.0, "draw from the smallest set of this probability", gt=0, le=1)
    min_p: float = setting(0.0, "drop tokens below this share of the likeliest one's probability; 0: off", ge=0, le=1)
    typical_p: float = setting(1.0, "draw from the most typical tokens of this probability; 1: off", gt=0, le=1)
    repetition_penalty: float = setting(1.0, "factor on the log-probability of what has occurred; 1: off", ge=0.01)
    seed: int = setting(0, "seed of the draw", ge=0, le=SEED_LIMIT)
    prompt: str = setting("", "text to continue")


@dataclass(frozen=True, kw_only=True)
class LaunchConfig(Section):
    """A training job on rented hardware, see ``sem launch``."""

    section: ClassVar[str] = "launch"
    flavor: str = setting("l40sx1", "hardware of the job, as the hub names it", pattern=r"[a-z0-9-]+")
    image: str = setting(
        "pytorch/pytorch:2.6.0-cuda12.4-cudnn9-devel",
        "container image of the job; a devel one has torch for the GPU and the C++ compiler that builds the operators",
        pattern=r"\S+",
    )
    timeout: str = setting("24h", "longest run of the job: seconds, or with m, h or d", pattern=r"[1-9]\d*[smhd]?")
    secrets: tuple[str, ...] = setting(("HF_TOKEN",), "names of environment variables handed over as secrets")
    namespace: str | None = setting(None, "user or organisation that runs the job; null: the token's own")
    hub_repo: str | None = setting(
        None, "model repository, owner/name, that keeps the run; a job needs it", pattern=r"[\w.-]+/[\w.-]+"
    )
    source: str | None = setting(
        None,
        "what pip installs in the job, such as git+https://host/owner/sem@commit, or a path in the image; "
        "${NAME} stands for a secret",
        pattern=r"((git\+)?https?://|/)\S+",
    )

    def cross_checks(self) -> Iterator[str]:
        # a value given by mistake in place of a name must not be shown
        if not all(re.fullmatch(r"[A-Z_][A-Z0-9_]*", name) for name in self.secrets):
            yield "launch.secrets: expected names of environment variables, such as HF_TOKEN, and never a value"
