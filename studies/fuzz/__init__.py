"""Mutated inputs of one sound case: what breaks, what hangs, what is accepted and why."""
