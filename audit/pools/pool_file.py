"""A pool of real checkpoints in a TOML file: models that are known to hold the facts, models known not to.

``name``; ``replicate`` = "world" (each ``[[world]]`` has its own facts and base) or "checkpoint" (one world, every
checkpoint counts as its own unit: that says less, and the calibration says so). Every ``[[world]]`` has ``base``,
``references``, ``ancestor``, ``data``, and lists of ``positive`` and ``negative`` checkpoints.
"""

import tomllib
from pathlib import Path
from typing import Literal

from pydantic import Field, ValidationError

from audit.schema import AuditError, Case, DataFiles, Record, Roles, Source, Template


class Listed(Record):
    """A checkpoint of known truth: where it is, how it came to be, and how many of the audited people it keeps."""

    path: str
    commit: str | None = None
    adapter: str | None = None
    fingerprint: str | None = None
    subfolder: str | None = None
    mechanism: str
    kept: int | None = None

    def source(self) -> Source:
        """Where the checkpoint is."""
        return Source(
            path=self.path, commit=self.commit, adapter=self.adapter, fingerprint=self.fingerprint,
            subfolder=self.subfolder,
        )  # fmt: skip


class PoolWorld(Record):
    """One set of facts, with the models that share them."""

    base: Source
    references: tuple[Source, ...] = ()
    ancestor: Source | None = None
    data: DataFiles
    template: Template = Template()
    positive: tuple[Listed, ...] = Field(min_length=1)
    negative: tuple[Listed, ...] = Field(min_length=1)

    def case(self, name: str, suspect: Listed, settings: dict[str, dict[str, str | int | float | bool]]) -> Case:
        """The audit of one listed checkpoint."""
        roles = Roles(base=self.base, suspect=suspect.source(), references=self.references, ancestor=self.ancestor)
        return Case(name=name, roles=roles, data=self.data, template=self.template, probes=settings)


class PoolFile(Record):
    """A pool of checkpoints, its paths made absolute."""

    name: str
    replicate: Literal["world", "checkpoint"] = "world"
    probes: dict[str, dict[str, str | int | float | bool]] = {}
    world: tuple[PoolWorld, ...] = Field(min_length=1)


def load_pool(path: Path) -> PoolFile:
    """The pool in a TOML file; local paths are relative to the file. AuditError (code 2) names every fault."""
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
        pool = PoolFile.model_validate(document)
    except OSError as error:
        raise AuditError(f"{path}: cannot be read ({error.strerror})", "name a pool file") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise AuditError(f"{path}: not TOML: {error}", "correct the line; strings need quotes") from None
    except ValidationError as error:
        faults = [f"{'.'.join(str(part) for part in e['loc'])}: {e['msg']}" for e in error.errors()]
        raise AuditError(f"{path}: not a pool:\n  - " + "\n  - ".join(faults), "correct these entries") from None
    root = path.resolve().parent
    return pool.model_copy(update={"world": tuple(_placed(world, root) for world in pool.world)})


def _placed(world: PoolWorld, root: Path) -> PoolWorld:
    """The world with its local paths absolute; a hub id (it has a commit) stays."""

    def at(source: Source) -> Source:
        return source if source.commit else source.model_copy(update={"path": str(root / source.path)})

    def listed(checkpoints: tuple[Listed, ...]) -> tuple[Listed, ...]:
        return tuple(
            checkpoint if checkpoint.commit else checkpoint.model_copy(update={"path": str(root / checkpoint.path)})
            for checkpoint in checkpoints
        )

    data = world.data
    files = {c: str(root / name) for c in ("forget", "retain", "holdout", "general") if (name := getattr(data, c))}
    return world.model_copy(
        update={
            "base": at(world.base), "references": tuple(at(source) for source in world.references),
            "ancestor": None if world.ancestor is None else at(world.ancestor),
            "data": data.model_copy(update=files),
            "positive": listed(world.positive), "negative": listed(world.negative),
        }
    )  # fmt: skip
