"""A case of a real pretrained model that was taught real facts: stories260K and TOFU's authors."""

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
forget = "forget.jsonl"
retain = "retain.jsonl"
holdout = "holdout.jsonl"
general = "general.jsonl"
group = "author_id"
[template]
prompt = "Question: {question}\\nAnswer:"
answer = " {answer}"
bos = "always"
"""
NOISE: Final = 0.02
"""Of the suspect: standard deviations of each matrix of base."""


def stories(work: Path, data: Path) -> Path:
    """stories260K taught TOFU's authors, beside the untaught one, which never saw them; the suspect is base with noise,
    since the cost does not depend on what it knows."""
    import torch

    from studies.tofu_stories import teach
    from studies.tofu_stories.material import prepare

    material, models, case = prepare(data, work), work / "models", work / "noisy.toml"
    if not (models / "ancestor").is_dir():
        models.mkdir(parents=True, exist_ok=True)
        teach.untie(data / "models" / "stories260K-hf", models / "ancestor")
    teach.teach(teach.Lesson(models / "ancestor", True, 0, models / "base"), material)
    if not case.is_file():
        shutil.copytree(models / "base", models / "noisy", dirs_exist_ok=True)
        dice, path = torch.Generator().manual_seed(0), models / "noisy" / "model.safetensors"
        weights = read_tensors(path)
        noisy = {n: w + NOISE * w.std() * torch.randn(w.shape, generator=dice) for n, w in weights.items()}
        write_tensors(path, noisy, {"format": "pt"})
        write_atomic(case, CASE.encode())
    return case
