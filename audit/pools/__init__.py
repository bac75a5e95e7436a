"""Scores of models of known truth, made and renewed, and the calibrations fitted from them."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
