"""Numbers and hostile text as words, for the judge and for every view alike."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
