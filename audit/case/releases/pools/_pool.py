"""What a parser of releases is."""

from abc import ABC, abstractmethod
from pathlib import Path
from typing import ClassVar

from audit.case.releases.clues import Benchmark, Clues
from audit.case.releases.release import Release


class Pool(ABC):
    """Base of every parser. ``looks_for`` is said where nothing was recognised; of two that name a model for one role
    the one with the lower ``order`` is heard first."""

    looks_for: ClassVar[str]
    order: ClassVar[int] = 50

    def data(self, folder: Path, file: str) -> Benchmark | None:
        """The benchmark whose files lie in a folder, if it is this one's; ``file`` is the one that was named in it."""
        return None

    @abstractmethod
    def clues(self, release: Release) -> Clues:
        """What this parser finds in what a release says of itself; empty clues where it is none of its kind."""
