"""Mutated inputs: every kind of broken case, data, config, tokenizer and weight file, and how each ends."""
