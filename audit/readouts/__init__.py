"""Read-outs in closed form on arrays: out-of-group ridge, label swaps with max-T, a batched logistic probe."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
