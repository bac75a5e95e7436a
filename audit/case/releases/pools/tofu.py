"""TOFU: which split was to be forgotten, and its files. Models of TOFU's own authors are known by their names."""

import re
from pathlib import Path
from typing import ClassVar, Final

from audit.case.releases.clues import Benchmark, Clues, Wanted
from audit.case.releases.nearby import DataSet, find_data
from audit.case.releases.pools._pool import Pool
from audit.case.releases.release import Release

RETAINED: Final = {"01": "99", "05": "95", "10": "90"}
"""Per cent that are kept, by per cent that are forgotten."""
_SPLIT = re.compile(r"forget[-_]?(01|05|10)(?!\d)", re.IGNORECASE)


def forgotten_share(release: Release) -> str:
    """The per cent that a release was made to forget (01, 05, 10), by its names, else by its card; empty if unknown."""
    for text in (*release.names, release.card.words):
        if shares := set(_SPLIT.findall(text)):
            return shares.pop() if len(shares) == 1 else ""
    return ""


def of_tofu(release: Release) -> bool:
    """Is TOFU in its names or among the data sets of its card?"""
    return any("tofu" in name.casefold() for name in (*release.names, *release.card.datasets))


def tofu(share: str) -> Benchmark:
    """TOFU with this split to be forgotten."""
    retained = RETAINED[share]
    return Benchmark(
        name=f"TOFU, forget{share}",
        data=DataSet("locuslab/TOFU", ("tofu", "TOFU"), ("*.json", "*.jsonl")),
        files=(
            Wanted("forget", (f"forget{share}_perturbed", f"forget{share}"), "the authors to be forgotten"),
            Wanted("retain", ("retain_perturbed", f"retain{retained}"), "authors that were kept"),
            Wanted("holdout", (f"holdout{share}",), "authors of the same kind whom no model was taught"),
            Wanted("general", ("world_facts_perturbed", "world_facts"), "questions about the world"),
        ),
        group_rows=20, group_why="as TOFU is published, 20 consecutive rows are one author",
    )  # fmt: skip


class Tofu(Pool):
    """Anything that names TOFU and one of its splits."""

    looks_for: ClassVar[str] = "TOFU and its split (`tofu` and forget01, forget05 or forget10 in a name or the card)"
    order: ClassVar[int] = 40

    def data(self, folder: Path, file: str) -> Benchmark | None:
        """TOFU by its files: the split that was named, else the largest that is there."""
        there = [share for share in RETAINED if find_data((f"forget{share}_perturbed", f"forget{share}"), (folder,))]
        named = _SPLIT.search(file)
        share = named[1] if named else there[-1] if there else ""
        others = ", ".join(f"forget{other}" for other in there if other != share)
        if share not in there or not find_data(("retain_perturbed", f"retain{RETAINED[share]}"), (folder,)):
            return None
        return tofu(share)._replace(also=f"name a file of {others} to take that split" if others else "")

    def clues(self, release: Release) -> Clues:
        """The data; the roles are said by who published the model."""
        share = forgotten_share(release)
        if not share or not of_tofu(release):
            return Clues()
        reason = f"its name or card says forget{share}, which is the whole file"
        return Clues(f"TOFU, forget{share}, by its name or card", benchmark=tofu(share), edited_on_all=reason)
