"""Griffe extension: the docstrings' ``Example:`` is the parser's ``Examples:``, which shows doctests as code."""

from __future__ import annotations

import re
from typing import Any

from griffe import Extension, Object


class DocstringExamples(Extension):
    def on_object(self, *, obj: Object, **unused: Any) -> None:
        if obj.docstring is not None:
            obj.docstring.value = re.sub(r"^Example:$", "Examples:", obj.docstring.value, flags=re.MULTILINE)
