"""Settings that keep the name of the model that a training run began with."""

from typing import ClassVar

from audit.case.releases.clues import Clues, Named
from audit.case.releases.pools._pool import Pool
from audit.case.releases.release import CONFIG, Release, bare_name, text_of


class ConfigName(Pool):
    """``_name_or_path`` of older releases: often a path on the machine of the training, whose last part is tried."""

    looks_for: ClassVar[str] = "a `_name_or_path` in config.json"
    order: ClassVar[int] = 70

    def clues(self, release: Release) -> Clues:
        """The model that the settings name, unless it is the release itself."""
        name = text_of(release.config, "_name_or_path")
        if not name or bare_name(name) == bare_name(release.name):
            return Clues()
        return Clues(
            f"a model whose {CONFIG} names another",
            base=(Named(name, f"_name_or_path in {CONFIG}; it has to have known the forget data"),),
        )
