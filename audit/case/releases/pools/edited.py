"""Folders that ``residua edit`` wrote."""

from typing import ClassVar

from audit.case.releases.clues import Clues, Named
from audit.case.releases.pools._pool import Pool
from audit.case.releases.release import EDIT, Release


class EditedFolder(Pool):
    """An edit: base is its parent."""

    looks_for: ClassVar[str] = "an edit of ours (edit.json)"
    order: ClassVar[int] = 5

    def clues(self, release: Release) -> Clues:
        """The parent."""
        if not release.parent:
            return Clues()
        return Clues("an edited checkpoint, by its edit.json", base=(Named(release.parent, f"from {EDIT}"),))
