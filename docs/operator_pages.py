"""A hook of mkdocs: the pages that the table of operators/index.md links to are in the navigation."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

INDEX = Path(__file__).parent / "operators" / "index.md"


def pages() -> list[str]:
    """The pages' files in the order of the table."""
    return re.findall(r"^\| \[`\w+`\]\((\w+\.md)\)", INDEX.read_text(encoding="utf-8"), re.MULTILINE)


def on_config(config: Any) -> Any:
    section = next(entry["Operators"] for entry in config["nav"] if "Operators" in entry)
    section += [{Path(page).stem: f"operators/{page}"} for page in pages()]
    return config
