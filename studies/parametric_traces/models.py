"""The models of the study: worlds in which a name is looked up where it ends, and what was made of their base."""

from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

from audit.case import CaseFile
from audit.schema import Case
from audit.zoo import build

WORLD: Final = "parametric"
NEVER_KNEW: Final = ("reference_0",)
KNOWING: Final = ("base", "rocr", "rocr_one", "rocr_noise", "rocr_paper", "rome", "subject_gate", "needle")
"""What leaves the knowledge in the model by construction, or only takes out some value vectors of it."""
TRAINED: Final = ("grad_diff", "npo", "refusal", "npo_relearned")


class Subject(NamedTuple):
    """One audited model: its world, what was done to it, and its case."""

    world: int
    method: str
    case: Case
    root: Path

    @property
    def key(self) -> str:
        """Its place in the results."""
        return f"{self.world}/{self.method}"


def subjects(world: int) -> Iterator[Subject]:
    """Every suspect of a world; models are made where they are missing."""
    for method, path in build(WORLD, world, workers=1).cases.items():
        read = CaseFile.read(path)
        yield Subject(world, method, read.case, read.root)
