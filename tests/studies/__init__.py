"""Tests of what the studies have committed: that files, pages and code belong together."""
