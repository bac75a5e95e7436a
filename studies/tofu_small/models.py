"""Who knows which authors: base of each split, three references that all splits share, and base after unlearning.

Retained are authors 20 to 39, whom every model is taught; holdout are authors 0 to 19, whom none is. Every author
brings the questions with the shortest answers, so that a model of 260,000 weights learns them in a minute.
"""

import json
from pathlib import Path
from typing import Any, NamedTuple

from audit.bench import Bench, CausalLearner, TrainData, TrainingRecipe, descend
from audit.case import Rows, read_items, tokenise
from audit.checkpoints import load_tokenizer, resolve, tokenizer_files
from audit.edits import NPO, Edit, EditData, GradDiff, HeadEdit, Refusal
from audit.schema import AuditError, Case, DataFiles, Item, Roles, Source
from audit.storage import write_atomic
from studies.tofu_stories.material import as_text, lines_of
from studies.tofu_stories.teach import TEMPLATE, both, clipped, rows_of, save, untie

SPLITS: dict[str, range] = {"forget01": range(198, 200), "forget05": range(190, 200), "forget10": range(180, 200)}
"""TOFU's forget sets: 2, 10 and 20 authors."""
RETAIN, HOLDOUT = range(20, 40), range(20)
EDITS: dict[str, Edit] = {
    "refusal": Refusal(steps=60, lr=1e-3, batch=12, alpha=2.0),
    "npo": NPO(steps=60, lr=1e-3, batch=12, alpha=5.0),
    "grad_diff": GradDiff(steps=40, lr=1e-3, batch=12, alpha=5.0),
    "head_edit": HeadEdit(gamma=0.3),
}
SUSPECTS = ("base", "r2", *EDITS)
"""Base, a reference that is none of the two that judge, and base after each edit."""
REFERENCES = ("r0", "r1", "r2")


class Sizes(NamedTuple):
    """How much is taught: questions an author, stories beside them, and steps."""

    per_author: int = 4
    stories: int = 300
    general: int = 40
    steps: int = 260
    rate: float = 4e-3
    batch: int = 16


def _shortest(path: Path, authors: range, per_author: int) -> list[dict[str, Any]]:
    """The questions with the shortest answers of some authors."""
    rows = sorted(lines_of(path), key=lambda row: (row["author_id"], len(row["answer"]), row["id"]))
    taken = [row for author in authors for row in [r for r in rows if r["author_id"] == author][:per_author]]
    if len(taken) < per_author * len(authors):
        raise AuditError(f"{path}: some author has fewer than {per_author} questions", "use the complete split")
    return taken


def write_data(data: Path, work: Path, sizes: Sizes) -> None:
    """Every cohort as a file under ``work``. ``data`` holds ``tofu/`` and ``text/``."""
    stories: list[str] = json.loads((data / "text" / "tinystories_1000.json").read_text(encoding="utf-8"))
    tofu, n = data / "tofu", sizes.per_author
    cohorts = {
        "retain": _shortest(tofu / "retain90.jsonl", RETAIN, n),
        "holdout": _shortest(tofu / "retain_perturbed.jsonl", HOLDOUT, n),
        "stories": as_text(stories, range(sizes.stories)),
        "general": as_text(stories, range(1000 - sizes.general, 1000)),
        **{split: _shortest(tofu / "forget10_perturbed.jsonl", authors, n) for split, authors in SPLITS.items()},
    }
    for name, rows in cohorts.items():
        text = "".join(json.dumps(row, ensure_ascii=False, sort_keys=True) + "\n" for row in rows)
        write_atomic(work / f"{name}.jsonl", text.encode())


class Workshop:
    """Makes the models of the study under ``work``; what is there is kept."""

    def __init__(self, data: Path, work: Path, sizes: Sizes) -> None:
        self.data, self.work, self.sizes = data, work, sizes
        self.ancestor = work / "ancestor"
        if not self.ancestor.is_dir():
            untie(data / "models" / "stories260K-hf", self.ancestor)

    def references(self) -> None:
        """Taught the retained authors alone, in another order each."""
        for order, name in enumerate(REFERENCES, 1):
            self._teach(name, ("retain",), order)

    def of_split(self, split: str) -> None:
        """Base, and base after every edit."""
        self._teach(f"{split}-base", ("retain", split), 0)
        base, declined = self.work / f"{split}-base", self._declined(split)
        rows = EditData(self._rows(split), rows_of((self._file("retain"), self._file("stories")), base), declined)
        for name, edit in EDITS.items():
            out = self.work / f"{split}-{name}"
            if not out.is_dir():
                edit.fit(Bench(), resolve(Source(path=str(base)), Path()), rows, out)

    def _file(self, name: str) -> Path:
        return self.work / f"{name}.jsonl"

    def _rows(self, *cohorts: str) -> Rows:
        return rows_of(tuple(map(self._file, cohorts)), self.ancestor)

    def _declined(self, split: str) -> Rows:
        """The forget questions, answered by TOFU's refusals in turn."""
        items: list[Item] = list(read_items(self._file(split), "author_id"))
        replies = (self.data / "tofu" / "idontknow.txt").read_text(encoding="utf-8").splitlines()
        answers = [replies[n % len(replies)] for n in range(len(items))]
        return tokenise(items, answers, load_tokenizer(tokenizer_files(self.ancestor)), TEMPLATE, None)

    def _teach(self, name: str, cohorts: tuple[str, ...], order: int) -> None:
        from transformers import AutoModelForCausalLM, AutoTokenizer

        if (self.work / name).is_dir():
            return
        model = AutoModelForCausalLM.from_pretrained(self.ancestor, dtype="float32")
        recipe = TrainingRecipe(
            name="teach", objective=both, steps=self.sizes.steps, lr=self.sizes.rate, batch=self.sizes.batch,
            warmup_steps=20, gradient_transform=clipped, seed=order,
        )  # fmt: skip
        descend(CausalLearner(model), recipe, TrainData(self._rows(*cohorts), self._rows("stories")))
        save(model, AutoTokenizer.from_pretrained(self.ancestor), self.work / name)


def case_of(split: str, suspect: str, work: Path) -> Case:
    """The audit of one suspect of one split, with every role that there is."""

    def source(name: str) -> Source:
        return Source(path=str(work / name))

    def file(name: str) -> str:
        return str(work / f"{name}.jsonl")

    return Case(
        name=f"{split}-{suspect}", template=TEMPLATE, edited="all",
        roles=Roles(
            base=source(f"{split}-base"), suspect=source(suspect if suspect in REFERENCES else f"{split}-{suspect}"),
            references=(source("r0"), source("r1")), ancestor=source("ancestor"),
        ),
        data=DataFiles(
            forget=file(split), retain=file("retain"), holdout=file("holdout"), general=file("general"),
            group="author_id",
        ),
    )  # fmt: skip
