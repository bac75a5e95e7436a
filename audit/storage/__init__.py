"""Bytes on disk: whole or not at all, named by content, memory-mapped where they are large."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
