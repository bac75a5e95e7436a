"""What models of known truth say of a rule: read, applied, counted. No model is run here."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
