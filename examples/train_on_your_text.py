"""Train a small model on text files of your own, in half a minute, and let it continue a line.

python train_on_your_text.py [FILES OR FOLDERS]; by default the e-mail package of the standard library.
"""

import email
import sys
from pathlib import Path

import matplotlib.pyplot as plt

from sem.config import SEMConfig
from sem.config_sections import GenerationConfig
from sem.generation import generate_text
from sem.hub.pretrained import PretrainedSEMModel
from sem.training.logging import read_csv
from sem.training.trainer import SEMTrainer

texts = sys.argv[1:] or [str(Path(email.__file__).parent)]

config = SEMConfig().with_overrides(
    f"data.paths={texts}",
    "data.seq_length=128",
    "model.hidden_dim=64",
    "model.num_layers=2",
    "model.max_seq_length=128",
    "spinor.state_dim=8",
    "spinor.mimo_groups=8",
    "propagator.num_layers=1",
    "propagator.echo=true",
    "propagator.laplacian_sparsity=2",
    "propagator.long_range_share=0",
    "propagator.num_scales=1",
    "training.batch_size=8",
    "training.micro_batch_size=8",
    "training.learning_rate=6.0e-3",
    "training.max_steps=150",
    "training.warmup_steps=20",
    "training.eval_every=30",
    "training.num_threads=1",
    "training.loggers=[csv]",
    "training.output_dir=runs/own_text",
)
result = SEMTrainer(config).fit(overwrite=True)
bits = result.figures["val_bits_per_byte"]
print(f"{bits:.2f} bits per byte of text that it has not seen")

trained = PretrainedSEMModel.from_run("runs/own_text")
settings = GenerationConfig(prompt="    def get_", max_new_tokens=200, temperature=0.7, seed=0)
print(settings.prompt + "".join(generate_text(trained, trained.tokenizer, settings)))

rows = read_csv(Path("runs/own_text/metrics.csv"))
figure, axes = plt.subplots(figsize=(6, 3.6), layout="constrained")
axes.plot([row["step"] for row in rows], [row["bits_per_byte"] for row in rows], label="training")
held_out = [(row["step"], row["val_bits_per_byte"]) for row in rows if row.get("val_bits_per_byte")]
axes.plot(*zip(*held_out, strict=True), "o-", label="held out")
axes.set(xlabel="step", ylabel="bits per byte")
axes.legend()
figure.savefig("train_on_your_text.png", dpi=100)
