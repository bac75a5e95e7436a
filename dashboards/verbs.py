"""What the Run page can start: each verb in words, what it asks for, the arguments that it becomes, how far it is."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Final, NamedTuple

from audit.runs import run_files
from dashboards.vault import Vault
from dashboards.workers import Heard

WORDS: Final = {
    "run": "run: audit the case's suspect", "sweep": "sweep: audit many suspects of one case",
    "calibrate": "calibrate --on: error rates for this kind of model", "forecast": "forecast: how hard it will be",
}  # fmt: skip
OWN_KIND: Final = "own-kind"
"""Calibrations lie beside their case. Below the folder of runs their work has this name; nothing is written there."""
_STEP: Final = re.compile(r"^\[ *[\d.]+ s\] (.+?) \((\d+)/(\d+)\)", re.MULTILINE)


class Asked(NamedTuple):
    """What the form holds: a case file, the folder below the folder of runs, and what some verbs take beside it."""

    case: str
    out: str
    suspects: tuple[str, ...] = ()
    time: str = ""


def in_words(verb: str) -> str:
    """A verb as the form offers it."""
    return WORDS.get(verb, verb)


def plain_path(text: str) -> str:
    """A path that no command takes for a flag."""
    return f"./{text}" if text.startswith("-") else text


def arguments(verb: str, form: Asked, root: Path, flags: Sequence[str]) -> list[str]:
    """What the verb is started with."""
    case = plain_path(form.case)
    if verb == "calibrate":
        return ["--on", case, *(["--max-time", form.time] if form.time else []), *flags]
    suspects = ["--suspects", *map(plain_path, form.suspects)] if verb == "sweep" and form.suspects else []
    return [case, *suspects, "-o", str(root / form.out), *flags]


def planned(verb: str, form: Asked, root: Path, flags: Sequence[str]) -> tuple[str, list[str]]:
    """The verb and arguments that say what it would do, and write nothing."""
    given = arguments(verb, form, root, flags)
    return (verb, [*given, "--dry-run"]) if verb in ("sweep", "calibrate") else ("plan", given)


def suggested(case: str, verb: str) -> str:
    """A folder for this case that others of its folder do not have."""
    path = Path(case)
    name = path.stem if path.stem != "case" else path.resolve().parent.name
    return f"{OWN_KIND}/{name}" if verb == "calibrate" else name if verb == "run" else f"{name}-{verb}"


class Step(NamedTuple):
    """The last step that a worker told of: what, and how many of how many."""

    words: str
    done: int
    total: int

    @property
    def share(self) -> float:
        """From 0 to 1."""
        return min(self.done / self.total, 1.0) if self.total else 0.0


def last_step(outcome: Heard) -> Step:
    """How far a worker says that it is."""
    steps = _STEP.findall(outcome.log)
    if not steps:
        return Step("Opening the case and its models", 0, 0)
    words, done, total = steps[-1]
    return Step(words, int(done), int(total))


def finished_below(vault: Vault, folder: str) -> tuple[int, int]:
    """Of a sweep: how many audits below its folder are finished, and how many were begun."""
    inside = [name for name in vault.runs() if name.startswith(f"{folder}/")]
    return sum(vault.stamp(f"{name}/{run_files.MANIFEST}") is not None for name in inside), len(inside)
