"""Writes configuration.md from the configuration's own dataclasses: ``python docs/configuration_page.py``."""

from __future__ import annotations

import inspect
import json
from pathlib import Path

from sem.config import SECTIONS
from sem.settings import SettingInfo, setting_infos

PAGE = Path(__file__).with_name("configuration.md")

INTRODUCTION = """\
# Configuration

<!-- Written by docs/configuration_page.py. -->

A run is described by a YAML file of sections, by options of the command line, or by both; options win. What
is left out keeps its default.

```sh
sem train --config configs/tiny.yaml --training.max_steps 100 --data.paths my/texts
```

An unknown key, a wrong type and an impossible value are errors that name the key, the value and what was
expected; values that must fit each other are checked too. Every run saves all its settings, defaults
included, as `config.yaml` in its folder.
"""


def page() -> str:
    """The page's text."""
    parts = [INTRODUCTION]
    for name, section in SECTIONS.items():
        rows = "\n".join(_row(info) for info in setting_infos(section))
        parts.append(
            f"## {name}\n\n{inspect.getdoc(section)}\n\n"
            f"| setting | default | allowed | meaning |\n|---|---|---|---|\n{rows}\n"
        )
    return "\n".join(parts)


def _row(info: SettingInfo) -> str:
    default = json.dumps(list(info.default) if isinstance(info.default, tuple) else info.default)
    meaning = info.help if info.former_key is None else f"{info.help}; formerly `{info.former_key}`"
    cells = (f"`{info.key}`", f"`{default}`", info.expected, meaning)
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
