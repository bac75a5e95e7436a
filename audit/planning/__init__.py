"""What will be done before anything is looked at: tests, prices, limits, settings."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
