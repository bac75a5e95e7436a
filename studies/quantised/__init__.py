"""Quantised releases audited against their float base, beside the same weights as a plain folder."""
