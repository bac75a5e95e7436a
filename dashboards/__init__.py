"""The audit dashboard: reads the files of finished and running audits, compares checkpoints, starts new audits.

It loads no model and never imports torch. :mod:`dashboards.vault` is its one door to the disk, the pages are the files
in ``pages/``, and whatever is measured is measured by a process of its own (:mod:`dashboards.workers`).
"""
