"""The model card of an exported model: what was trained on what, and what was measured."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sem.config import SEMConfig
from sem.run_names import FINAL
from sem.training.averages import PREFIX

TEMPLATE = """\
---
{{ card_data }}
---

# {{ title }}

A causal language model whose hidden state is a complex wave, trained by `sem`.

| | |
|---|---|
{% for name, value in table %}| {{ name }} | {{ value }} |
{% endfor %}
## Measured

{{ measured }}
{% if figures %}
| figure | value |
|---|---|
{% for name, value in figures %}| {{ name }} | {{ value }} |
{% endfor %}{% endif %}
## Use

```python
from sem.hub.pretrained import PretrainedSEMModel

model = PretrainedSEMModel.from_pretrained("{{ source }}")
```

or, with transformers,

```python
import sem.hub.transformers  # registers the model with AutoConfig and AutoModelForCausalLM
from transformers import pipeline

pipeline("text-generation", "{{ source }}")("import ")
```

## Configuration

What differs from the defaults; `config.json` has all of it.

```yaml
{{ settings }}```
"""


@dataclass(frozen=True, kw_only=True)
class Provenance:
    """Where a model's parameters come from.

    Attributes:
        step: training steps behind them; None where nothing is known of a training.
        averaged: whether they are the averages over training (``training.ema_decay``).
        figures: ``final.json`` of the run, if it was written at this very step.
        why_unmeasured: why there are no figures, a sentence.
    """

    step: int | None = None
    averaged: bool = False
    figures: Mapping[str, float] = field(default_factory=dict)
    why_unmeasured: str = "Nothing was measured."


def provenance(folder: Path, step: int | None, *, averaged: bool) -> Provenance:
    """What the run in ``folder`` measured of the parameters that it had after ``step``.

    Raises:
        ValueError: ``final.json`` is not what a run writes.
    """
    path = folder / FINAL
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        final_step = int(found.pop("step"))
        figures = {name: float(value) for name, value in found.items()}
    except FileNotFoundError:
        why = "Not measured: the run has not come to its end."
        return Provenance(step=step, averaged=averaged, why_unmeasured=why)
    except (ValueError, TypeError, KeyError, AttributeError, OSError) as error:
        problem = f"{type(error).__name__}: {error}"
        raise ValueError(f"{path}: expected the figures that the end of a run writes, got {problem}") from None
    if final_step != step:
        why = f"Not measured: the run's figures are those after step {final_step}."
        return Provenance(step=step, averaged=averaged, why_unmeasured=why)
    own = {name.removeprefix(PREFIX): v for name, v in figures.items() if name.startswith(PREFIX) == averaged}
    return Provenance(
        step=step, averaged=averaged, figures=own, why_unmeasured="The averaged parameters were not measured."
    )


def card_fields(config: SEMConfig, parameters: int, origin: Provenance, title: str) -> dict[str, Any]:
    """What fills :data:`TEMPLATE`, beside the library's own fields."""
    import yaml

    training = config.training
    kind = f"averages with decay {training.ema_decay:g} over training" if origin.averaged else "of the last step"
    table = [("parameters", f"{parameters:,} in float32")]
    if origin.step is not None:
        table += [
            ("training", f"{origin.step:,} steps of {training.batch_size} rows of {config.seq_length} tokens"),
            ("weights", kind),
            ("precision of training", training.precision_mode),
            ("text", config.data.text),
        ]
    table.append(("tokenizer", "bytes" if config.data.tokenizer == "bytes" else "byte-level, `tokenizer.json`"))
    table = [(name, value.replace("|", "\\|")) for name, value in table]
    figures = [(name, f"{value:.6g}") for name, value in origin.figures.items()]
    measured = f"On held-out text, after step {origin.step:,}:" if figures else origin.why_unmeasured
    settings = yaml.safe_dump(_changed(config), sort_keys=False, allow_unicode=True)
    return {
        "title": title,
        "table": table,
        "figures": figures,
        "measured": measured,
        "settings": settings,
        "source": title,
    }


def _changed(config: SEMConfig) -> dict[str, dict[str, Any]]:
    """The settings that are not the defaults, by section; ``launch`` and folders say nothing of a model."""
    defaults = SEMConfig().to_dict()
    defaults["training"]["output_dir"] = config.training.output_dir
    sections = {
        name: {key: value for key, value in values.items() if value != defaults[name][key]}
        for name, values in config.to_dict().items()
        if name != "launch"
    }
    return {name: values for name, values in sections.items() if values}
