"""An audit of models that are larger than the memory they are given."""
