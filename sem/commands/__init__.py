"""The commands of ``sem``, a module each.

A module offers ``HELP`` (one line), ``add_arguments(parser)`` and ``run(options) -> exit status``; it raises what
:func:`sem.cli.main` turns into one line and a status.
"""
