"""Sparse autoencoders of cached activations: trained as sae_lens trains, kept in its format, read without it.

A dictionary is a :class:`SparseCoder` in memory and a folder on disk, which sae_lens opens too. What is measured of it
on a checkpoint (explained variance, active features, dead ones) says whether it may be used there at all.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
