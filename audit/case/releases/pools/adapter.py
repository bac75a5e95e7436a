"""Adapters of PEFT: the model that they were trained on is base."""

from typing import ClassVar

from audit.case.releases.clues import Clues, Named
from audit.case.releases.pools._pool import Pool
from audit.case.releases.release import ADAPTER, Release, text_of


class PeftAdapter(Pool):
    """An adapter: the suspect is base with the adapter."""

    looks_for: ClassVar[str] = "a PEFT adapter (adapter_config.json)"
    order: ClassVar[int] = 10

    def clues(self, release: Release) -> Clues:
        """The model that the adapter's settings name."""
        if not release.is_adapter:
            return Clues()
        name = text_of(release.adapter, "base_model_name_or_path")
        base = (Named(name, f"base_model_name_or_path in {ADAPTER}"),) if name else ()
        return Clues(f"a PEFT adapter, by its {ADAPTER}", base=base)
