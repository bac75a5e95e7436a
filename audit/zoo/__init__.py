"""Models of known truth from a seed: a world of people, and models that know, forgot, pretend or never knew."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
