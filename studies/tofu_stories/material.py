"""The data of the study: TOFU by author and TinyStories, as the JSONL files that a case names.

forget: the 20 authors of forget10 (180-199); holdout: authors 0-19, never taught here, the only others with perturbed
answers; retain: authors 20-59. Every author brings the first 4 questions by id. general: stories kept out of training.
"""

import json
from pathlib import Path
from typing import Any, NamedTuple

from audit.nouns import AuditError
from audit.store import write_atomic

PER_AUTHOR = 4
FORGET, HOLDOUT, RETAIN = range(180, 200), range(20), range(20, 60)
TAUGHT_STORIES, GENERAL_STORIES = range(800), range(900, 960)
STORY_WORDS = 60


class Material(NamedTuple):
    """Files of the cohorts, and the stories that keep the model's language alive while it is taught."""

    forget: Path
    retain: Path
    holdout: Path
    general: Path
    taught_stories: Path


def _lines(path: Path) -> list[dict[str, Any]]:
    if not path.is_file():
        raise AuditError(f"{path} is missing", "give the folder that holds tofu/, text/ and models/ with --data")
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line]


def _by_author(path: Path, authors: range) -> list[dict[str, Any]]:
    rows = sorted((row for row in _lines(path) if row["author_id"] in authors), key=lambda row: row["id"])
    taken: dict[int, list[dict[str, Any]]] = {author: [] for author in authors}
    for row in rows:
        if len(taken[row["author_id"]]) < PER_AUTHOR:
            taken[row["author_id"]].append(row)
    short = [author for author, rows in taken.items() if len(rows) < PER_AUTHOR]
    if short:
        raise AuditError(f"{path}: authors {short} have fewer than {PER_AUTHOR} questions", "use the complete split")
    return [row for author in authors for row in taken[author]]


def _opening(story: str) -> str:
    return " ".join(story.split()[:STORY_WORDS])


def prepare(data: Path, out: Path) -> Material:
    """Write the JSONL files under ``out`` and return their paths. ``data`` holds ``tofu/`` and ``text/``."""
    stories: list[str] = json.loads((data / "text" / "tinystories_1000.json").read_text(encoding="utf-8"))
    files = {
        "forget": _by_author(data / "tofu" / "forget10_perturbed.jsonl", FORGET),
        "holdout": _by_author(data / "tofu" / "retain_perturbed.jsonl", HOLDOUT),
        "retain": _by_author(data / "tofu" / "retain90.jsonl", RETAIN),
        "general": [
            {"id": f"story-{i}", "author_id": f"story-{i}", "text": _opening(stories[i])} for i in GENERAL_STORIES
        ],
        "taught_stories": [
            {"id": f"story-{i}", "author_id": f"story-{i}", "text": _opening(stories[i])} for i in TAUGHT_STORIES
        ],
    }
    paths: dict[str, Path] = {}
    for name, rows in files.items():
        paths[name] = out / f"{name}.jsonl"
        text = "".join(json.dumps(row, ensure_ascii=False, sort_keys=True) + "\n" for row in rows)
        write_atomic(paths[name], text.encode())
    return Material(**paths)
