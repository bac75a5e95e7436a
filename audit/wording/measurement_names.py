"""What pages and files call a measurement whose own name is that of a published number with another formula."""

from typing import Final

OWN: Final = {("forget_likelihood", "truth_ratio"): "knowledge_truth_ratio"}
"""Probe and name of a measurement, and what it is called wherever it is shown.

Reports, stored scores and calibrations are named by content and keep the name that they were made with.
"""


def shown_name(probe: str, name: str) -> str:
    """The name under which a measurement is shown and handed on; its own, but for those in :data:`OWN`."""
    return OWN.get((probe, name), name)
