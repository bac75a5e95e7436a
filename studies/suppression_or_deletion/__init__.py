"""Suppression or deletion: every method by every restoration test, on models of known truth."""
