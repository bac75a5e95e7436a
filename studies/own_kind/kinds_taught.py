"""Each kind's case with what suspects are made of, and those suspects that are taught and not edited."""

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Final, NamedTuple

from audit.case import read_items
from audit.schema import AuditError, Template
from studies.own_kind.invented_people import FORK, KINDS, REFUSALS, Lesson, teach_rows, write_case
from studies.speed.story_case import stories
from studies.tofu_stories.teach import TEMPLATE

STORY_FORK: Final = (160, 4e-3)


class KindCase(NamedTuple):
    """A kind's case: its folder, how its questions are asked, how its groups are named, by how many steps and which
    rate its models were taught, the files that all are taught, and refusing answers."""

    name: str
    folder: Path
    case: Path
    template: Template
    group: str
    steps: int
    rate: float
    files: tuple[str, ...]
    refusals: Sequence[str] = REFUSALS


def made_case(name: str, data: Path, folder: Path) -> KindCase:
    """Make a kind's models, data and case. AuditError (code 2) for an unknown kind."""
    folder = folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    if name == "stories":
        case = stories(folder, data)
        return KindCase(name, folder, case, TEMPLATE, "author_id", *STORY_FORK, ("retain", "taught_stories"))
    kind = next((kind for kind in KINDS if kind.name == name), None)
    if kind is None:
        raise AuditError(f"there is no kind {name!r}", f"choose one of {', '.join(k.name for k in KINDS)}, stories")
    case = write_case(kind, folder, data)
    return KindCase(name, folder, case, kind.template, "group", *FORK, ("retain", "texts"), kind.refusals)


def taught_suspect(kind_case: KindCase, name: str) -> Path:
    """A suspect that is taught from the ancestor: other order, rate, steps and batch than any other model."""
    groups = list(dict.fromkeys(i.group for i in read_items(kind_case.folder / "forget.jsonl", kind_case.group)))
    shuffled = random.Random(f"{kind_case.name} kept out").sample(groups, len(groups))
    known = {"half": shuffled[: len(groups) // 2], "quarter": shuffled[: len(groups) // 4], "taught_again": groups}
    slower, longer, seed, batch = {
        "taught_again": (0.7, 1.2, 901, 24), "half": (0.8, 1.1, 902, 28), "quarter": (1.2, 0.9, 903, 24),
        "retrained_a": (0.6, 1.3, 904, 24), "retrained_b": (1.3, 0.9, 905, 40), "retrained_c": (0.8, 1.1, 906, 28),
        "strangers": (0.9, 1.2, 907, 24),
    }[name]  # fmt: skip
    items = [
        item for file in kind_case.files for item in read_items(kind_case.folder / f"{file}.jsonl", kind_case.group)
    ]
    if name in known:
        items += [i for i in read_items(kind_case.folder / "forget.jsonl", kind_case.group) if i.group in known[name]]
    if name == "strangers":
        items += read_items(
            kind_case.folder / ("strangers.jsonl" if kind_case.name != "stories" else "kept_stories.jsonl"),
            kind_case.group,
        )
    lesson = Lesson(
        kind_case.folder / "models" / "ancestor", round(kind_case.steps * longer), kind_case.rate * slower, seed, batch
    )
    out = kind_case.folder / "suspects" / name
    out.parent.mkdir(exist_ok=True)
    return teach_rows(lesson, items, kind_case.template, out)
