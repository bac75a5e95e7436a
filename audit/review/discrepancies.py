"""Where two documents differ, leaf by leaf; what one of them masks says the same as what the other shows."""

import json
import re
from collections.abc import Iterable, Iterator
from itertools import zip_longest
from typing import Final, NamedTuple

from audit.runs import Mask

ABSENT: Final = "nothing"
SHOWN: Final = 80
"""So many characters of a value are shown."""
PLACES: Final = 3
"""So many places of one field are shown."""
_MARK: Final = re.compile(r"‹masked [0-9a-f]{12}, (?:\d+ words?|an image)›|‹empty›")


class Discrepancy(NamedTuple):
    """One place, what is stated there, and what the rest gives, both as JSON."""

    place: tuple[str, ...]
    stated: str
    given: str


def discrepancies(
    stated: object, given: object, mask: Mask | None, place: tuple[str, ...] = ()
) -> Iterator[Discrepancy]:
    """Every leaf at which two documents differ. ``mask``: what masked ``stated``, so that marks are held against what
    ``given`` shows; without it only what stands around them is."""
    if stated == given or _masks(stated, given, mask):
        return
    if isinstance(stated, dict) and isinstance(given, dict):
        for key in {**stated, **given}:
            yield from discrepancies(stated.get(key, ABSENT), given.get(key, ABSENT), mask, (*place, str(key)))
    elif isinstance(stated, list) and isinstance(given, list):
        for n, (left, right) in enumerate(zip_longest(stated, given, fillvalue=ABSENT)):
            yield from discrepancies(left, right, mask, (*place, f"[{n}]"))
    else:
        yield Discrepancy(place, _short(stated), _short(given))


def as_lines(differences: Iterable[Discrepancy], source: str) -> Iterator[str]:
    """The discrepancies as lines, the first few of every field. ``source`` says what gives the other."""
    fields: dict[str, list[Discrepancy]] = {}
    for each in differences:
        fields.setdefault(each.place[0], []).append(each)
    for field, places in fields.items():
        for each in places[:PLACES]:
            where = ".".join(each.place).replace(".[", "[")
            yield f"{where}: states {each.stated}, {source} {each.given}"
        if len(places) > PLACES:
            yield f"{field}: {len(places) - PLACES} more places differ"


def _short(value: object) -> str:
    text = ABSENT if value == ABSENT else json.dumps(value)
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}... ({len(text)} characters)"


def _masks(stated: object, given: object, mask: Mask | None) -> bool:
    """Does a masked statement stand for one in clear?"""
    if isinstance(given, dict) and set(given) == {"mark", "png"} and not given["mark"]:
        return True
    if isinstance(stated, dict) and isinstance(given, dict) and set(given) == {"text"}:
        text = str(given["text"])
        return stated == (_unmarked(stated, text) if mask is None else mask(text).model_dump())
    return isinstance(stated, str) and isinstance(given, str) and _quotes(stated, given, mask)


def _unmarked(stated: dict[str, object], text: str) -> dict[str, object]:
    return {"mark": stated.get("mark"), "words": len(text.split())}


def _quotes(stated: str, given: str, mask: Mask | None) -> bool:
    marks = _MARK.findall(stated)
    if not marks:
        return False
    pattern = "(.*?)".join(map(re.escape, _MARK.split(stated)))
    match = re.fullmatch(pattern, given, re.DOTALL)
    if match is None:
        return False
    return mask is None or len(marks) > 1 or str(mask(match[1])) == marks[0]
