"""One model behind one backend: hooks that read and write states, held equal by one conformance suite."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
