"""Which kinds of models can be opened: a file of :mod:`audit.wrappers.families` each, and nothing lists it.

A family claims the models of one modality, or some model types of it; where two claim a model, the narrower opens it.
"""

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, ClassVar

from audit import plugins
from audit.schema import AuditError, Checkpoint, Modality
from audit.wrappers.placement import Placement

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel

FAMILIES = "audit.wrappers.families"


class Family(ABC):
    """One kind of model: how its checkpoints are opened. ``model_types`` narrows it (empty: all of its modality)."""

    modality: ClassVar[Modality]
    model_types: ClassVar[tuple[str, ...]] = ()

    @abstractmethod
    def open_model(self, ckpt: Checkpoint, placement: Placement, dtype: str, attention: str) -> "PreTrainedModel":
        """The checkpoint's model in eval mode without gradients, placed as said. Edits are played back by the bench.

        ``attention``: ``default`` (the family's own choice), ``eager``, ``sdpa``, ... Raises AuditError: fingerprint
        does not match (3), weights missing or of another shape (3), unknown dtype (2).
        """

    def check_kind(self, model_type: str) -> None:
        """AuditError (code 2) by name for a kind of model of this modality that it does not open: none."""
        return None

    @abstractmethod
    def fresh(self, config: "PreTrainedConfig") -> "PreTrainedModel":
        """A model of this config as it is initialised, from torch's generator and on torch's default device."""


def family_of(modality: Modality, model_type: str) -> Family:
    """The family that opens such a model. AuditError (code 2) where none that is installed does, or where it opens
    other kinds of its modality alone."""
    installed = plugins.discover(FAMILIES, Family)
    claiming = [
        cls for cls in installed.values()
        if cls.modality == modality and (not cls.model_types or model_type in cls.model_types)
    ]  # fmt: skip
    if not claiming:
        known = ", ".join(f"{name} ({cls.modality})" for name, cls in installed.items())
        raise AuditError(
            f"{model_type}: models of {modality} are not supported yet by an installed family ({known})",
            "audit a model of a modality that a family opens",
        )
    narrowest = min(claiming, key=lambda cls: not cls.model_types)
    family = narrowest()  # pyright: ignore[reportAbstractUsage] what a folder holds is whole
    family.check_kind(model_type)
    return family
