"""How the package is called where it is installed from, and what brings what it can do without.

The distribution is not called what is imported: ``sem`` on the public index is another project.
"""

from __future__ import annotations

DISTRIBUTION = "sem-torch"
"""The name that pip knows the package by."""


def how_to_install(extra: str) -> str:
    """The command that installs ``extra``, for messages that name what is missing.

    Example:
        >>> how_to_install("ptycho")
        "pip install 'sem-torch[ptycho]'"
    """
    return f"pip install '{DISTRIBUTION}[{extra}]'"
