"""Griffe extension: reads a docstring's ``Example:`` as ``Examples:``, which the parser shows as code."""

from __future__ import annotations

import re
from typing import Any

from griffe import Extension, Object


class DocstringExamples(Extension):
    def on_object(self, *, obj: Object, **unused: Any) -> None:
        if obj.docstring is not None:
            obj.docstring.value = re.sub(r"^Example:$", "Examples:", obj.docstring.value, flags=re.MULTILINE)
