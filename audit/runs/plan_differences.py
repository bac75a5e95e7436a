"""What names a plan, and where two of them differ, leaf by leaf."""

import json
from collections.abc import Iterator
from typing import Final

from audit.schema import Plan, content_key

SHOWN_DIFFERENCES: Final = 20


def _leaves(value: object, path: str = "") -> Iterator[tuple[str, str]]:
    if isinstance(value, dict):
        for key, below in value.items():
            yield from _leaves(below, f"{path}.{key}" if path else str(key))
    elif isinstance(value, list):
        for index, below in enumerate(value):
            yield from _leaves(below, f"{path}[{index}]")
    else:
        yield path, json.dumps(value)


def difference(old: Plan, new: Plan) -> list[str]:
    """Where two plans differ, one line a leaf: ``path: old -> new``."""
    before = dict(_leaves(old.model_dump(mode="json")))
    after = dict(_leaves(new.model_dump(mode="json")))
    changed = [key for key in {**before, **after} if key != "plan_hash" and before.get(key) != after.get(key)]
    lines = [f"{key}: {before.get(key, 'absent')} -> {after.get(key, 'absent')}" for key in changed]
    more = len(lines) - SHOWN_DIFFERENCES
    return lines[:SHOWN_DIFFERENCES] + ([f"... and {more} more"] if more > 0 else [])


def plan_hash_of(plan: Plan) -> str:
    """The hash of a plan: of everything that it says, with the hash of every probe's settings."""
    return content_key(plan.model_copy(update={"plan_hash": ""}).model_dump(mode="json"))
