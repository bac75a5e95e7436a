"""The one door to the accelerator: the only package that runs a model."""

from audit.bench.bench import Bench
from audit.bench.opened import OpenCase

__all__ = ["Bench", "OpenCase"]
