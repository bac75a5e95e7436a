"""One edit a file: unlearners, fakes and attacks. The folder is the registry."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
