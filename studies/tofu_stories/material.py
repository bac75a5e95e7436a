"""The data of the study: TOFU by author and TinyStories, as the JSONL files that a case names.

forget: the 20 authors of forget10 (180-199); holdout: authors 0-19, never taught here, the only others with perturbed
answers; retain: authors 20-59. Every author brings the first 4 questions by id. general: stories kept out of training.
"""

import json
from pathlib import Path
from typing import Any, NamedTuple

from audit.schema import AuditError
from audit.storage import write_atomic

PER_AUTHOR = 4
FORGET, HOLDOUT, RETAIN = range(180, 200), range(20), range(20, 60)
TAUGHT_STORIES, KEPT_STORIES, GENERAL_STORIES = range(800), range(160), range(900, 960)
STORY_WORDS = 60


class Material(NamedTuple):
    """Files of the cohorts, and the stories that keep the model's language alive while it is taught or edited."""

    forget: Path
    retain: Path
    holdout: Path
    general: Path
    taught_stories: Path
    kept_stories: Path


def lines_of(path: Path) -> list[dict[str, Any]]:
    """The rows of a JSONL file. AuditError (code 2) where it is missing."""
    if not path.is_file():
        raise AuditError(f"{path} is missing", "give the folder that holds tofu/, text/ and models/ with --data")
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line]


def _by_author(path: Path, authors: range) -> list[dict[str, Any]]:
    rows = sorted((row for row in lines_of(path) if row["author_id"] in authors), key=lambda row: row["id"])
    taken: dict[int, list[dict[str, Any]]] = {author: [] for author in authors}
    for row in rows:
        if len(taken[row["author_id"]]) < PER_AUTHOR:
            taken[row["author_id"]].append(row)
    short = [author for author, rows in taken.items() if len(rows) < PER_AUTHOR]
    if short:
        raise AuditError(f"{path}: authors {short} have fewer than {PER_AUTHOR} questions", "use the complete split")
    return [row for author in authors for row in taken[author]]


def as_text(stories: list[str], chosen: range) -> list[dict[str, Any]]:
    """The openings of some stories as plain text, each its own group."""
    openings = {f"story-{i}": " ".join(stories[i].split()[:STORY_WORDS]) for i in chosen}
    return [{"id": name, "author_id": name, "text": text} for name, text in openings.items()]


def prepare(data: Path, out: Path) -> Material:
    """Write the JSONL files under ``out`` and return their paths. ``data`` holds ``tofu/`` and ``text/``."""
    stories: list[str] = json.loads((data / "text" / "tinystories_1000.json").read_text(encoding="utf-8"))
    files = {
        "forget": _by_author(data / "tofu" / "forget10_perturbed.jsonl", FORGET),
        "holdout": _by_author(data / "tofu" / "retain_perturbed.jsonl", HOLDOUT),
        "retain": _by_author(data / "tofu" / "retain90.jsonl", RETAIN),
        "general": as_text(stories, GENERAL_STORIES),
        "taught_stories": as_text(stories, TAUGHT_STORIES),
        "kept_stories": as_text(stories, KEPT_STORIES),
    }
    paths: dict[str, Path] = {}
    for name, rows in files.items():
        paths[name] = out / f"{name}.jsonl"
        text = "".join(json.dumps(row, ensure_ascii=False, sort_keys=True) + "\n" for row in rows)
        write_atomic(paths[name], text.encode())
    return Material(**paths)
