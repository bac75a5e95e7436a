"""What touches disk: frozen, strict, free of torch.

Records say what is audited, from where, on which data, and what was found. Unknown keys are errors, NaN is refused,
and a missing value is the record ``Missing`` with a reason, never a number.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
