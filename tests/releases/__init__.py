"""Releases: what is recognised in a folder or a hub id, and the case that is written of it."""
