"""Who plays what: the models of a case by the part that each plays in an effect."""

from typing import NamedTuple

from audit.case import OpenCase
from audit.checkpoints import model_config
from audit.schema import Case, Checkpoint, Role


class CaseModels(NamedTuple):
    """Who plays what. ``null`` never knew (a reference, else the ancestor); ``floors`` are further such references."""

    base: Checkpoint
    suspect: Checkpoint
    null: Checkpoint | None
    null_role: Role | None
    floors: tuple[Checkpoint, ...]

    def by_name(self) -> dict[str, Checkpoint]:
        """Every model under a name of its own: base, suspect, null, floor0, floor1, ..."""
        null = {} if self.null is None else {"null": self.null}
        floors = {f"floor{i}": floor for i, floor in enumerate(self.floors)}
        return {"base": self.base, "suspect": self.suspect} | null | floors

    def role(self, name: str) -> str:
        """The role of a named model, as tables show it."""
        return {"base": "base", "suspect": "suspect", "null": self.null_role or "null"}.get(name, "reference")


def case_models_of(case: OpenCase) -> CaseModels:
    """The models of a case, by the part they play in an effect."""
    null = case.null
    return CaseModels(
        base=case.checkpoint("base"),
        suspect=case.checkpoint("suspect"),
        null=None if null is None else case.checkpoint(*null),
        null_role=None if null is None else null[0],
        floors=tuple(case.checkpoint("reference", i) for i in case.floors),
    )


def models_of(case: Case) -> list[tuple[Role, int]]:
    """Role and number of every model that :func:`case_models_of` gives a part, before the case is opened."""
    null, floors = case.roles.null, case.roles.floors
    return [("base", 0), ("suspect", 0), *([] if null is None else [null]), *(("reference", i) for i in floors)]


def n_blocks(case: OpenCase) -> int:
    """How many blocks base has, by its config (nothing is loaded)."""
    return model_config(case.base).blocks


def n_places(case: OpenCase) -> int:
    """How many depths a state can be handed over at, at the most: the blocks, and of questions about pictures those of
    the tower that sees them and the projector."""
    if case.modality != "image+text":
        return n_blocks(case)
    return 1 + sum(tower.blocks or 0 for tower in model_config(case.base).towers.values())


def width(model: Checkpoint) -> int:
    """How wide a model's residual stream is, by its config (nothing is loaded)."""
    return model_config(model).width
