"""Circuits: which edges a model answers through, how alike two are, and what they say before unlearning."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
