"""Mutation testing: are the tests able to notice that a room's code has been changed?

Cosmic Ray's operators make the mutants. What stands here chooses a seeded sample of them, runs the tests that reach the
changed line, each mutant in a fork of one process that has the libraries in memory, and writes down what was noticed.
``make mutants`` runs it; it takes hours, goes on where it was stopped, and is no part of continuous integration.
"""
