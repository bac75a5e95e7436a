"""A case of a real pretrained model that was taught real facts: stories260K and TOFU's authors."""

import json
import shutil
from pathlib import Path
from typing import Final

from audit.storage import read_tensors, write_atomic, write_tensors

CASE: Final = """name = "stories"
edited = "all"
[roles.base]
path = "models/base"
[roles.suspect]
path = "models/noisy"
[roles.ancestor]
path = "models/ancestor"
[data]
forget = "{few}forget.jsonl"
retain = "{few}retain.jsonl"
holdout = "{few}holdout.jsonl"
general = "{few}general.jsonl"
group = "author_id"
[template]
prompt = "Question: {question}\\nAnswer:"
answer = " {answer}"
bos = "always"
"""
NOISE: Final = 0.02
"""Of the suspect: standard deviations of each matrix of base."""


def stories(work: Path, data: Path, facts: int = 4) -> Path:
    """stories260K taught TOFU's authors, beside the untaught one, which never saw them; the suspect is base with noise,
    since the cost does not depend on what it knows. ``facts``: how many of every author's four are audited, and the
    same share of the stories."""
    import torch

    from studies.tofu_stories import teach
    from studies.tofu_stories.material import PER_AUTHOR, prepare

    material, models = prepare(data, work), work / "models"
    few = "" if facts == PER_AUTHOR else f"{facts}-"
    case = work / f"{few}noisy.toml"
    if not (models / "ancestor").is_dir():
        models.mkdir(parents=True, exist_ok=True)
        teach.untie(data / "models" / "stories260K-hf", models / "ancestor")
    teach.teach(teach.Lesson(models / "ancestor", True, 0, models / "base"), material)
    if not (models / "noisy").is_dir():
        shutil.copytree(models / "base", models / "noisy")
        dice, path = torch.Generator().manual_seed(0), models / "noisy" / "model.safetensors"
        weights = read_tensors(path)
        noisy = {n: w + NOISE * w.std() * torch.randn(w.shape, generator=dice) for n, w in weights.items()}
        write_tensors(path, noisy, {"format": "pt"})
    for path in (material.forget, material.retain, material.holdout, material.general):
        write_atomic(path.with_name(few + path.name), "".join(_first(path, facts, PER_AUTHOR)).encode())
    write_atomic(case, CASE.replace("{few}", few).encode())
    return case


def _first(path: Path, facts: int, of: int) -> list[str]:
    """Lines of a file: the first ``facts`` of ``of`` of every author, and of stories the same share."""
    lines, seen = list[str](), dict[str, int]()
    for line in path.read_text(encoding="utf-8").splitlines(keepends=True):
        row = json.loads(line)
        group = "stories" if "text" in row else str(row["author_id"])
        number = seen[group] = seen.get(group, -1) + 1
        if number % of < facts:
            lines.append(line)
    return lines
