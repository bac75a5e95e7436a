"""Before unlearning: which items will be hard, and what is tied to what must stay."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
