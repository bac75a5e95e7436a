"""Model cards of the hub: ``base_model`` and how the model came from it."""

from typing import ClassVar

from audit.releases.clues import Clues, Named
from audit.releases.pools._pool import Pool
from audit.releases.release import Release


class CardOfTheHub(Pool):
    """A card that names a base model. Of a copy in fewer bits it is the model in more bits, not what it was before."""

    looks_for: ClassVar[str] = "a model card that names a `base_model` (README.md)"
    order: ClassVar[int] = 60

    def clues(self, release: Release) -> Clues:
        """The models that the card names."""
        named = tuple(
            Named(name, "base_model in the model card (README.md); it has to have known the forget data")
            for name in release.card.base_models
        )
        if not named:
            return Clues()
        found = "a model card with base_model"
        return Clues(found, copy_of=named) if release.is_copy else Clues(found, base=named)
