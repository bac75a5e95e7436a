"""GGUF files: a model in the bits of llama.cpp, which names what it was converted from."""

from typing import ClassVar

from audit.case.releases.clues import Clues, Named
from audit.case.releases.gguf_metadata import base_models_of
from audit.case.releases.pools._pool import Pool
from audit.case.releases.release import Release


class GgufFile(Pool):
    """A GGUF file: what its header names is what it was converted from, or what that came from."""

    looks_for: ClassVar[str] = "a GGUF file"
    order: ClassVar[int] = 20

    def clues(self, release: Release) -> Clues:
        """The models that the header names, unless the card names one."""
        if not release.gguf:
            return Clues()
        candidates = tuple(
            Named(name, "general.base_model in the GGUF header") for name in base_models_of(release.gguf)
        )
        recognised = "a GGUF file, by its header"
        if release.card.base_models:
            return Clues(recognised)
        return Clues(recognised, copy_of=candidates)
