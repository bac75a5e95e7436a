"""Small models as folders, and the case of each suspect: what a search is given."""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from audit.schema import Case, DataFiles, Roles, Source
from audit.zoo import general_items, items, write, write_jsonl
from studies.backdoor.plain import Small

if TYPE_CHECKING:
    from transformers import PreTrainedModel

COHORTS = ("forget", "retain", "holdout")


def write_world(small: Small, suspects: Mapping[str, "PreTrainedModel"], out: Path) -> None:
    """Base, ancestor, references and suspects under ``models``, cohorts under ``data``; whole or not at all."""
    temporary = out.with_name(f"{out.name}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    (temporary / "data").mkdir(parents=True)
    models = {"base": small.base, "ancestor": small.ancestor, **suspects}
    models |= {f"reference_{n}": model for n, model in enumerate(small.references)}
    for name, model in models.items():
        write(model, temporary / "models" / name)
    for cohort in COHORTS:
        write_jsonl(temporary / "data" / f"{cohort}.jsonl", items(small.world, cohort))
    write_jsonl(temporary / "data" / "general.jsonl", general_items(small.world))
    temporary.rename(out)


def case_of(suspect: str, references: int = 2) -> Case:
    """The case of one suspect of such a folder; ``suspect`` may be a reference, which is then no reference."""
    others = [f"reference_{n}" for n in range(references) if f"reference_{n}" != suspect]
    return Case(
        name=suspect, seed=0,
        roles=Roles(
            base=_at("base"), suspect=_at(suspect), ancestor=_at("ancestor"), references=tuple(map(_at, others))
        ),
        data=DataFiles(**{cohort: f"data/{cohort}.jsonl" for cohort in (*COHORTS, "general")}),
    )  # fmt: skip


def _at(name: str) -> Source:
    return Source(path=f"models/{name}")
