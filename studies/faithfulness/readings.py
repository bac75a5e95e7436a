"""What was read of models before and after attacks, on disk: one file a world. Nothing here loads a model."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from pydantic import ValidationError

from audit.schema import AuditError, ExitCode, Number, Record, TruthLabel

State = Literal["before", "relearned", "relearned others", "rounded"]
ATTACKS: tuple[State, ...] = ("relearned", "relearned others", "rounded")


class Reading(Record):
    """What the metrics say of one model in one state, and of its audited people.

    ``taught`` are the audited people whom the weights were taught; ``utility`` is the harmonic mean of both gates.
    ``values``: metric -> level of knowledge; ``people``: metric -> person -> effect, of models as they are only.
    """

    model: str
    mechanism: str
    pool: TruthLabel
    state: State
    taught: tuple[str, ...]
    utility: float
    values: dict[str, Number]
    people: dict[str, dict[str, float]] = {}


class AttackedMember(Record):
    """One model in every state it was read in, with what was done to it and what it cost."""

    readings: tuple[Reading, ...]
    attacks: dict[str, dict[str, str | int | float | bool]]
    cpu_s: dict[str, float]


class AttackedWorld(Record):
    """All readings of one world, what made them and what they cost."""

    schema_version: Literal["1.0"] = "1.0"
    world: int
    recipe: dict[str, str | int | float]
    code: dict[str, str]
    attacks: dict[str, dict[str, str | int | float | bool]]
    cpu_s: dict[str, float]
    readings: tuple[Reading, ...]


def path_of(out: Path, world: int) -> Path:
    """Where a world's readings lie."""
    return out / f"world-{world:04d}.json"


def read_attacked(path: Path) -> AttackedWorld:
    """The readings in one file. AuditError (code 3) if it cannot be read as such."""
    try:
        return AttackedWorld.model_validate_json(path.read_bytes())
    except (OSError, ValidationError) as error:
        raise AuditError(
            f"{path} holds no attacked models ({type(error).__name__})", "delete it", ExitCode.INTEGRITY
        ) from None


def read_all(out: Path) -> Sequence[AttackedWorld]:
    """All worlds that were attacked, by number."""
    return sorted((read_attacked(path) for path in out.glob("world-*.json")), key=lambda world: world.world)
