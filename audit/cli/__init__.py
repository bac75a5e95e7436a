"""The command line, ``residua <verb>``. The door: :func:`main`. A new verb is one file in ``commands/``."""

from audit.cli.process import main

__all__ = ["main"]
