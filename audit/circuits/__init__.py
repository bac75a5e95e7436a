"""Circuits: which edges a model answers through, how alike two circuits are, and what they say before unlearning."""
