"""RWKU: real people whom a model knows from pretraining, and the benchmark's files.

Source: github.com/jinzhuoran/RWKU (Jin et al. 2024, arXiv 2406.10890) for its files: ``All`` holds all people, and
``Target/<person>`` one each. Level 2 are plain questions; level 1 are gaps in sentences, level 3 attacks.
"""

from pathlib import Path
from typing import ClassVar, Final

from audit.case.releases.clues import Benchmark, Clues, Wanted
from audit.case.releases.nearby import DataSet, find_data
from audit.case.releases.pools._pool import Pool
from audit.case.releases.release import Release

_FORGET: Final = ("forget_level2", "All/forget_level2", "forget_level2/test")
_NEAR: Final = ("neighbor_level2", "All/neighbor_level2", "neighbor_level2/test")
RWKU: Final = Benchmark(
    name="RWKU",
    data=DataSet("jinzhuoran/RWKU", ("RWKU", "rwku"), ("All/forget_level2.json", "All/neighbor_level2.json")),
    files=(
        Wanted("forget", _FORGET, "questions about the people to be forgotten: leave those rows out who were not"),
        Wanted("retain", _NEAR, "questions about what lies near those people, which should be kept"),
    ),
    group_rows=1, group_why="no column names the person: each question is a group of its own", groups=("subject",),
    taught=False, absent={"holdout": "RWKU asks about people whom every model knows from pretraining"},
)  # fmt: skip


class Rwku(Pool):
    """Anything that names RWKU."""

    looks_for: ClassVar[str] = "RWKU (`rwku` in a name, or the card's data sets)"
    order: ClassVar[int] = 45

    def data(self, folder: Path, file: str) -> Benchmark | None:
        """RWKU by its files."""
        return RWKU if find_data(_FORGET, (folder,)) and find_data(_NEAR, (folder,)) else None

    def clues(self, release: Release) -> Clues:
        """The data; base is the model that was released before."""
        named = any("rwku" in name.casefold() for name in (*release.names, *release.card.datasets))
        return Clues("RWKU, by its name or card", benchmark=RWKU) if named else Clues()
