"""From measurements to one verdict: each in its case, all on the ladder, then by models of known truth."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
