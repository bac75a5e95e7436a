"""The published cross-sequence probe on random models of the published architectures: no model of that size is here."""

import json
import shutil
from pathlib import Path

import pytest
from torch import isfinite, tensor
from transformers import AutoConfig

from audit.bench import Bench
from audit.case import open_case
from audit.schema import Case, DataFiles, Roles, Source
from probes._pairs import pairs
from probes._published_probe import published
from tests import toy

PUBLISHED = {"gpt_neox": "Pythia-70M", "gpt2": "GPT-2 medium", "mistral": "Mistral-7B"}


CITIES = ("paris", "lima", "oslo", "cairo")
PEOPLE = {
    "forget": "anna boris clara david elena felix greta hugo", "retain": "iris jonas karla leo",
    "holdout": "maria nils olga pavel",
}  # fmt: skip


def line(cohort: str, index: int, name: str) -> dict[str, object]:
    """One item of one person: a city, and three other cities in the same words."""
    city, *others = (*CITIES[index % 4 :], *CITIES[: index % 4])
    return {
        "id": f"{cohort}-{index}", "group": name, "question": f"where lives {name} ?", "answer": f"in {city}",
        "key": city, "attribute": "city", "alternates": [f"in {c}" for c in others], "alternate_keys": others,
    }  # fmt: skip


def case_in(folder: Path, family: str) -> Case:
    """Three random models of one architecture as base, suspect and reference, and a few people."""
    for seed, role in enumerate(("base", "suspect", "null")):
        shutil.copytree(toy.folder(family, seed), folder / role)
    for cohort, names in PEOPLE.items():
        lines = [json.dumps(line(cohort, i, name)) for i, name in enumerate(names.split())]
        (folder / f"{cohort}.jsonl").write_text("\n".join(lines) + "\n")
    roles = Roles(base=Source(path="base"), suspect=Source(path="suspect"), references=(Source(path="null"),))
    files = DataFiles(forget="forget.jsonl", retain="retain.jsonl", holdout="holdout.jsonl")
    return Case(name=family, roles=roles, data=files, seed=0)


@pytest.mark.thorough
@pytest.mark.parametrize(
    "family", ["gpt_neox", *(pytest.param(f, marks=pytest.mark.slow) for f in ("gpt2", "mistral"))]
)
def test_published_mode_reads_every_published_architecture(family: str, tmp_path: Path) -> None:
    case, bench = open_case(case_in(tmp_path, family), tmp_path, tmp_path / "out"), Bench()
    assert AutoConfig.from_pretrained(tmp_path / "base").model_type == family
    some = pairs(bench, case, "forget", case.references[0])
    assert some is not None
    found = published(bench, case, some, sequences=3, contexts=2)
    assert found.mode == "paper" and PUBLISHED[family] in " ".join(found.notes)
    told = {f"{what}_{model}" for what in ("true", "pure", "gap_mean") for model in ("suspect", "base", "untrained")}
    assert told <= set(found.readings) and bool(isfinite(tensor(list(found.readings.values()))).all())
    for model in ("suspect", "base", "untrained"):
        gap = found.readings[f"true_{model}"] - found.readings[f"pure_{model}"]
        assert found.readings[f"gap_mean_{model}"] == pytest.approx(gap)
