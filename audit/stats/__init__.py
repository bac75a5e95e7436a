"""Statistics, each with its citation: pure numpy and scipy, no schema but errors."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
