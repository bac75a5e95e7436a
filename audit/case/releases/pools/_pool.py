"""What a parser of releases is."""

from abc import ABC, abstractmethod
from typing import ClassVar

from audit.case.releases.clues import Clues
from audit.case.releases.release import Release


class Pool(ABC):
    """Base of every parser. ``looks_for`` is said where nothing was recognised; of two that name a model for one role
    the one with the lower ``order`` is heard first."""

    looks_for: ClassVar[str]
    order: ClassVar[int] = 50

    @abstractmethod
    def clues(self, release: Release) -> Clues:
        """What this parser finds in what a release says of itself; empty clues where it is none of its kind."""
