"""What is audited, opened and tokenised: the case file, the items, the split, the rows."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
