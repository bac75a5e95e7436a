"""The version of the package: apart, so that whoever states it needs nothing else of the product."""

__version__ = "0.1.0"
