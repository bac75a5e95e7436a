"""The command line, ``residua <verb>``. The door: :func:`main`. A new verb is one file in ``commands/``."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
