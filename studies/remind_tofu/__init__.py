"""REMIND on TOFU, by author, beside a classifier that sees no model."""
