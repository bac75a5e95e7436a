"""The published cross-sequence probe on random models of the published architectures: no model of that size is here."""

import json
import shutil
from pathlib import Path

import pytest
from torch import isfinite, tensor
from transformers import AutoConfig

from audit.bench import Bench
from audit.bench.opened import open_case
from audit.nouns import Case, DataFiles, Roles, Source
from probes.cross_sequence import CrossSequence
from tests import toy

PUBLISHED = {"gpt_neox": "Pythia-70M", "gpt2": "GPT-2 medium", "mistral": "Mistral-7B"}


def case_in(folder: Path, family: str) -> Case:
    """A suspect, base and reference of one architecture, and four people with two cities each to tell apart."""
    for seed, role in enumerate(("base", "suspect", "null")):
        shutil.copytree(toy.folder(family, seed), folder / role)
    cities = ("paris", "lima", "oslo", "cairo")
    for cohort, people in (
        ("forget", ("anna", "boris", "clara", "david", "elena", "felix", "greta", "hugo")),
        ("retain", ("iris", "jonas", "karla", "leo")),
        ("holdout", ("maria", "nils", "olga", "pavel")),
    ):
        lines = [
            {
                "id": f"{cohort}-{i}", "group": name, "question": f"where lives {name} ?", "answer": f"in {cities[i % 4]}",
                "key": cities[i % 4], "attribute": "city",
                "alternates": [f"in {c}" for c in cities if c != cities[i % 4]],
                "alternate_keys": [c for c in cities if c != cities[i % 4]],
            }
            for i, name in enumerate(people)
        ]  # fmt: skip
        (folder / f"{cohort}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    roles = Roles(base=Source(path="base"), suspect=Source(path="suspect"), references=(Source(path="null"),))
    files = DataFiles(forget="forget.jsonl", retain="retain.jsonl", holdout="holdout.jsonl")
    return Case(name=family, roles=roles, data=files, seed=0)


@pytest.mark.parametrize("family", PUBLISHED)
def test_published_mode_reads_every_published_architecture(family: str, tmp_path: Path) -> None:
    case = open_case(case_in(tmp_path, family), tmp_path, tmp_path / "out")
    assert AutoConfig.from_pretrained(tmp_path / "base").model_type == family
    found = CrossSequence(swaps=49, permutations=99, battery=False, paper=True).measure(Bench(), case)[-1]
    assert found.mode == "paper" and PUBLISHED[family] in " ".join(found.notes)
    told = {f"{what}_{model}" for what in ("true", "pure", "gap_mean") for model in ("suspect", "base", "untrained")}
    assert told <= set(found.readings) and bool(isfinite(tensor(list(found.readings.values()))).all())
    assert found.readings["gap_mean_base"] == pytest.approx(found.readings["true_base"] - found.readings["pure_base"])
