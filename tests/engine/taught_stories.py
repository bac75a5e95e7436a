"""A story model that was taught TOFU's authors, and its case without a suspect: taught once a session."""

import json
import shutil
from pathlib import Path

import pytest

from tests import worlds

DATA = Path(__file__).resolve().parents[3] / "shared" / "data"
needs_data = pytest.mark.skipif(not DATA.is_dir(), reason="needs TOFU and stories260K beside the project")
CASE = """
name = "stories"
[roles.base]
path = "models/base"
[roles.ancestor]
path = "models/ancestor"
[data]
forget = "data/forget.jsonl"
retain = "data/retain.jsonl"
holdout = "data/holdout.jsonl"
general = "data/general.jsonl"
group = "author_id"
[template]
prompt = "Question: {question}\\nAnswer:"
answer = " {answer}"
bos = "always"
[probes.relearning_recovery]
steps = 8
[probes.prompt_attribution]
most_points = 16
"""


def teach(folder: Path) -> None:
    """The case, its data, the story model, and that model taught all authors."""
    from studies.tofu_stories import teach
    from studies.tofu_stories.material import prepare

    material = prepare(DATA, folder / "data")
    for path, authors in (
        (material.forget, range(180, 190)),
        (material.retain, range(20, 40)),
        (material.holdout, range(10)),
    ):
        lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
        path.write_text("".join(line for line in lines if json.loads(line)["author_id"] in authors), encoding="utf-8")
    teach.untie(DATA / "models" / "stories260K-hf", folder / "models" / "ancestor")
    teach.teach(teach.Lesson(folder / "models" / "ancestor", True, 0, folder / "models" / "base"), material)
    (folder / "case.toml").write_text(CASE, encoding="utf-8")


def taught(factory: pytest.TempPathFactory) -> Path:
    """A copy of that folder, to write into."""
    folder = factory.mktemp("stories") / "case"
    shutil.copytree(worlds.made_once("taught_stories", teach), folder)
    return folder
