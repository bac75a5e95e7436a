"""Residua: what remains of the thing a model was asked to forget, and how sure are we?

The door of the product. ``run`` makes an audit and returns its report, ``plan`` says what would be done, ``forecast``
looks ahead before anything is unlearned; ``Case`` is what they are given, ``Report`` what comes back. ``Probe`` and
``Edit`` are the contracts of what can be added, ``Bench`` the only way to run a model. Each is imported when it
is first used, so that ``import audit`` stays free of torch.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
