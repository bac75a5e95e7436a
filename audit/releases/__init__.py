"""Releases: what a folder or a hub id is, and the case that audits it, filled in as far as it is known."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
