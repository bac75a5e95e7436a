"""Releases: what a folder or a hub id is, and the case that audits it, filled in as far as it is known."""
