"""What a cell of a data file holds, as words: a text, one of several answers, a chat, the unit of replication.

Every function raises ValueError with what is wrong, in the words of the file; whoever reads the row adds its place.
"""

import ast
import json
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple, cast

from audit.storage import too_deep

NO_GROUPS: Final = frozenset({"nan", "NaN", "<NA>", "NaT", "None", "null", "NULL", "N/A", "n/a"})
"""What libraries print for a value that is not there, as a name of a group."""
_NO_TEXT: Final = frozenset({"nan", "NaN", "<NA>", "NaT"})
_ROLES: Final = {
    "user": "user", "human": "user", "prompter": "user", "assistant": "assistant", "gpt": "assistant",
    "model": "assistant", "bot": "assistant", "chatbot": "assistant", "system": "system", "developer": "system",
}  # fmt: skip
_TURNS = re.compile(r"\s*\[\s*\{\s*[\"'](role|from|content|value)[\"']")
PICTURE_SUFFIXES: Final = (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".gif", ".tif", ".tiff", ".ppm", ".pgm")
PICTURE_MARK: Final = "<image>"
"""How conversations of LLaVA's kind say where the picture stands."""
_PICTURES: Final = frozenset({"image", "image_url", "input_image"})
"""What the parts of a turn are called that are pictures."""
_WHOLE = re.compile(r"-?\d+\.0+")


class Exchange(NamedTuple):
    """One question and one answer, and what the question's turn says of pictures: None for one that is only said to be
    there. In the question :data:`PICTURE_MARK` stands where they do."""

    question: str
    answer: str
    pictures: tuple[Any, ...] = ()


class Choice(NamedTuple):
    """The right one of several answers, and the others."""

    answer: str
    others: tuple[str, ...]


def is_absent(value: Any) -> bool:
    """Null, NaN, nothing but spaces, or an empty list."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return True
    return not value.strip() or value.strip() in _NO_TEXT if isinstance(value, str) else value in ([], {})


def words_of(value: Any) -> str:
    """A cell that must be a text: a number is its digits, a list of one text that text."""
    if isinstance(value, str):
        return value
    if isinstance(value, bool) or value is None:
        raise ValueError(f"is {json.dumps(value)}, not text")
    if isinstance(value, int | float):
        return str(int(value)) if isinstance(value, int) or value.is_integer() else str(value)
    if isinstance(value, dict) and isinstance(value.get("text"), list):  # answers of SQuAD
        return words_of(value["text"])
    if isinstance(value, list):
        several = list(dict.fromkeys(words_of(entry) for entry in value))
        if len(several) == 1:
            return several[0]
        shown = ", ".join(map(repr, several[:3]))
        raise ValueError(f"holds {len(several)} texts ({shown}): give a column with the one that was trained")
    raise ValueError(f"is {_kind(value)}, not text")


def name_of(value: Any) -> str:
    """An id or a group as a name: 3, 3.0 and "3.0" are one."""
    if isinstance(value, bool | list | dict | bytes):
        raise ValueError(f"is {_kind(value)}, not a name")
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    text = str(value).strip()
    return text.partition(".")[0] if _WHOLE.fullmatch(text) else text


def group_of(value: Any) -> str | None:
    """The name of a group; None where there is none. ValueError for NaN and for what libraries print in its place."""
    if value is None or (isinstance(value, str) and not value.strip()):
        return None
    if (isinstance(value, float) and math.isnan(value)) or (isinstance(value, str) and value.strip() in NO_GROUPS):
        raise ValueError(f"is {str(value).strip()}, which is no name")
    return name_of(value)


def several_of(value: Any) -> Any:
    """One text or a list of them, as a list; a cell of a CSV file holds a list as JSON. Anything else is left to the
    item to refuse."""
    if is_absent(value):
        return []
    if not isinstance(value, str):
        return value
    return _listed(value) if value.lstrip()[:1] == "[" and value.rstrip()[-1:] == "]" else [value]


def _listed(cell: str) -> list[Any]:
    """A list that is written as text. numpy writes ['a' 'b'], which Python reads as one text: that is refused."""
    try:
        loaded = json.loads(cell)
    except RecursionError:
        return [cell]
    except ValueError:
        try:
            loaded = ast.literal_eval(cell)
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            return [cell]
        if re.sub(r"\s", "", repr(loaded)) != re.sub(r"\s", "", cell):
            raise ValueError(f"is a list that cannot be read ({cell[:40]}): write it as JSON") from None
    return loaded if isinstance(loaded, list) and not too_deep(loaded) else [cell]


# ---- multiple choice --------------------------------------------------------------------------------------------
def chosen(choices: Any, answer: Any) -> Choice:
    """The choice that an answer names by its index from 0, by its letter or label, or in its own words."""
    labels: Sequence[str] = ()
    if isinstance(choices, dict) and {"text", "label"} <= choices.keys():  # choices of ARC
        labels, choices = [str(label) for label in choices["label"]], choices["text"]
    texts = [words_of(choice) for choice in several_of(choices)]
    if len(texts) < 2:
        raise ValueError("fewer than two choices")
    at = _named_choice(texts, labels, answer)
    return Choice(texts[at], tuple(dict.fromkeys(text for text in texts if text != texts[at])))


def _named_choice(texts: Sequence[str], labels: Sequence[str], answer: Any) -> int:
    if isinstance(answer, bool | list | dict):
        raise ValueError(f"the answer is {_kind(answer)}, which names no choice")
    name = name_of(answer)
    ways = {texts.index(name)} if isinstance(answer, str) and name in texts else set[int]()
    if labels:
        ways |= {labels.index(name)} if name in labels else set()
    elif name.isdecimal():
        ways |= {int(name)}
    elif len(name) == 1 and name.isascii() and name.isalpha():
        ways |= {ord(name.upper()) - ord("A")}
    if len(ways) != 1 or not 0 <= min(ways) < len(texts):
        raise ValueError(f"the answer {name!r} names {'several' if len(ways) > 1 else 'none'} of {len(texts)} choices")
    return ways.pop()


# ---- chats ------------------------------------------------------------------------------------------------------
def exchange_of(messages: Any, system: str) -> Exchange:
    """The question and the answer of a chat of one turn each; a system turn must be that of the template."""
    turns = [_turn(message) for message in _messages(messages)]
    said_first = [text for role, text, _ in turns if role == "system"]
    if any(text.strip() != system.strip() for text in said_first):
        line = json.dumps(said_first[0], ensure_ascii=False)
        raise ValueError(f"a system turn that is not the template's: `chat = true`, `system = {line}` in [template]")
    rest = [turn for turn in turns if turn[0] != "system"]
    if [role for role, _, _ in rest] != ["user", "assistant"]:
        order = ", ".join(role for role, _, _ in rest) or "no turn"
        raise ValueError(f"a chat of {order}: an item is one user turn and one assistant turn")
    if any(pictures for role, _, pictures in turns if role != "user"):
        raise ValueError("a picture that the user does not show: only those of the user's turn are read")
    (_, question, pictures), (_, answer, _) = rest
    return Exchange(question, answer, pictures)


def is_chat(value: Any) -> bool:
    """Is this a list of turns, or one written as JSON?"""
    if isinstance(value, str) and _TURNS.match(value):
        value = several_of(value)
    first = value[0] if isinstance(value, list) and value else None
    return isinstance(first, dict) and ("role" in first or "from" in first)


def _messages(value: Any) -> list[Any]:
    listed = several_of(value)
    if not isinstance(listed, list) or not listed:
        raise ValueError(f"is {_kind(value)}, not a list of turns")
    return cast("list[Any]", listed)


def _turn(message: Any) -> tuple[str, str, tuple[Any, ...]]:
    """The role, the words and the pictures of a turn, in either of the two ways in which they are written."""
    if not isinstance(message, dict):
        raise ValueError(f"a turn is {_kind(message)}, not an object with `role` and `content`")
    turn = cast("Mapping[str, Any]", message)
    role, content = turn.get("role", turn.get("from")), turn.get("content", turn.get("value"))
    if _ROLES.get(str(role)) is None:
        raise ValueError(f"a turn of {role!r}: only user, assistant and system are read")
    pictures: tuple[Any, ...] = ()
    if isinstance(content, list):
        content, pictures = _parted(cast("list[Any]", content))
    if not isinstance(content, str) or not content.replace(PICTURE_MARK, "").strip():
        raise ValueError(f"a turn of {role!r} without words")
    return _ROLES[str(role)], content, pictures


def _parted(parts: Sequence[Any]) -> tuple[str, tuple[Any, ...]]:
    """The words of a turn that is a list of parts, with :data:`PICTURE_MARK` where a picture stands, and the
    pictures."""
    kinds = [str(part.get("type")) if isinstance(part, dict) else _kind(part) for part in parts]
    if strange := set(kinds) - {"text"} - _PICTURES:
        raise ValueError(f"a turn of {', '.join(sorted(strange))}: only text and pictures are read")
    words, pictures = "", list[Any]()
    for kind, part in zip(kinds, cast("Sequence[Mapping[str, Any]]", parts), strict=True):
        if kind == "text":
            words += str(part.get("text") or "")
            continue
        words += PICTURE_MARK
        pictures.append({name: value for name, value in part.items() if name != "type" and value is not None} or None)
    return words, tuple(pictures)


def _kind(value: Any) -> str:
    names = {list: "a list", dict: "an object", bool: "true or false", int: "a number", float: "a number", str: "text"}
    return "nothing" if value is None else names.get(type(value), type(value).__name__)
