"""A case of untrained vision-language models: questions about made-up pictures, of every cohort."""

import json
import tempfile
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image

from audit.case import OpenCase, open_case
from audit.schema import Case, DataFiles, Roles, Source
from tests import toy, toy_vlm

COHORTS = ("forget", "retain", "holdout")
GROUPS, QUESTIONS = 4, 2
ROLES = ("base", "suspect", "null", "floor")


@cache
def root(kind: str) -> Path:
    """The folder of the data: a picture a group, with two questions each."""
    folder = Path(tempfile.mkdtemp(dir=toy.root()))
    rng, answers = np.random.default_rng(0), list(toy.WORDS[:10])
    for c, cohort in enumerate(COHORTS):
        lines: list[str] = []
        for group in range(GROUPS):
            name = f"{cohort}-{group}.png"
            Image.fromarray(toy_vlm.picture(100 * c + group, 12, 12)).save(folder / name)
            for question in range(QUESTIONS):
                answer = str(rng.choice(answers))
                others = [word for word in answers if word != answer][:3]
                item = {
                    "id": f"{cohort}-{group}-{question}", "group": f"{cohort}-{group}", "image": name,
                    "question": " ".join(map(str, rng.choice(toy.WORDS[10:40], 4))), "answer": answer, "key": answer,
                    "attribute": answers[c], "alternates": others, "alternate_keys": others,
                }  # fmt: skip
                lines.append(json.dumps(item))
        (folder / f"{cohort}.jsonl").write_text("\n".join(lines) + "\n")
    return folder


def case(kind: str, suspect: Source | None = None) -> Case:
    """The case on random models of one kind, each of another seed."""
    models = {role: Source(path=str(toy_vlm.folder(kind, seed))) for seed, role in enumerate(ROLES)}
    return Case(
        name=f"scene-{kind}",
        roles=Roles(
            base=models["base"], suspect=suspect or models["suspect"], references=(models["null"], models["floor"])
        ),
        data=DataFiles.model_validate({cohort: f"{cohort}.jsonl" for cohort in COHORTS}),
    )


def opened(kind: str, suspect: Source | None = None) -> OpenCase:
    """That case, opened."""
    return open_case(case(kind, suspect), root(kind), Path(tempfile.mkdtemp(dir=root(kind))))
