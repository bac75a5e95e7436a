"""Model cards of the hub: ``base_model`` and how the model came from it."""

from typing import ClassVar

from audit.case.releases.clues import Clues, Named
from audit.case.releases.pools._pool import Pool
from audit.case.releases.release import Release


class CardOfTheHub(Pool):
    """A card that names a base model. Of a copy in fewer bits it is the model in more bits, not what it was before."""

    looks_for: ClassVar[str] = "a model card that names a `base_model` (README.md)"
    order: ClassVar[int] = 60

    def clues(self, release: Release) -> Clues:
        """The models that the card names."""
        candidates = tuple(
            Named(name, "base_model in the model card (README.md); it has to have known the forget data")
            for name in release.card.base_models
        )
        if not candidates:
            return Clues()
        recognised = "a model card with base_model"
        return Clues(recognised, copy_of=candidates) if release.is_copy else Clues(recognised, base=candidates)
