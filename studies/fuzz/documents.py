"""Mutations of documents: a value of a JSON file, a row or the case is another one, is gone or stands twice."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final, get_args

from audit.schema import Case, Cohort, Columns, DataFiles, Fields, Roles, Source, Template
from studies.fuzz.mutations import Kind, Rng, Target, file_of

_DEEP: Final = 20_000
_VALUES: Final[tuple[Any, ...]] = (
    None, True, False, 0, -1, 1, 3, 7, 2**31, 2**63, 2**64, -(2**63) - 1, 10**30, 0.5, -0.0, 1e308, 5e-324,
    float("nan"), float("inf"), "", " ", "\0", "a\0b", "x" * 300, "x" * 5000, "word " * 20_000, "\x1b[31m", "\u202e",
    "\r\n\t", "../..", "/", "/dev/null", "~", "~nobody", ".", "C:\\x", "http://localhost", "{question}", "{{", "%s",
    "<script>", "nan", "true", "1", "\U0001f600" * 80, "\ud800", [], {}, [None], [[]], [1, "a"], ["a"] * 3, {"": ""},
    {"a": {"b": []}}, [{}],
)  # fmt: skip
_NAMES: Final = ("", " ", "\0", "__proto__", "auto_map", "model_type", "id", "x" * 300, "\x1b[0m", "\u00e9", "type")


def _places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Every place in a document, but the whole."""
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, part in pairs:
        yield (*path, key)
        yield from _places(part, (*path, key))


def _holder(document: Any, path: tuple[Any, ...]) -> Any:
    for key in path[:-1]:
        document = document[key]
    return document


def _other_value(rng: Rng, document: Any, path: tuple[Any, ...]) -> str:
    _holder(document, path)[path[-1]] = rng.choice(_VALUES)
    return json.dumps(document)


def _gone(rng: Rng, document: Any, path: tuple[Any, ...]) -> str:
    del _holder(document, path)[path[-1]]
    return json.dumps(document)


def _renamed(rng: Rng, document: Any, path: tuple[Any, ...]) -> str:
    holder = _holder(document, path)
    if isinstance(holder, dict):
        holder[rng.choice(_NAMES)] = holder.pop(path[-1])
    else:
        holder.append(holder[path[-1]])
    return json.dumps(document)


def _nested(rng: Rng, document: Any, path: tuple[Any, ...]) -> str:
    _holder(document, path)[path[-1]] = "@deep@"
    depth = rng.choice((50, 900, _DEEP))
    return json.dumps(document).replace('"@deep@"', "[" * depth + "]" * depth)


def _twice(rng: Rng, document: Any, path: tuple[Any, ...]) -> str:
    holder = _holder(document, path)
    if not isinstance(holder, dict):
        return json.dumps([document, document])
    name = json.dumps(path[-1])
    holder["@twice@"] = rng.choice(_VALUES)
    return json.dumps(document).replace('"@twice@"', name, 1)


def _long_number(rng: Rng, document: Any, path: tuple[Any, ...]) -> str:
    _holder(document, path)[path[-1]] = "@long@"
    drawn = ("9" * 300, "9" * 5000, "1e999", "-1e999", "1e-999", "0." + "1" * 3000, "1" + "0" * 40)
    return json.dumps(document).replace('"@long@"', rng.choice(drawn))


DOCUMENT: Final[dict[str, tuple[Callable[[Rng, Any, tuple[Any, ...]], str], str]]] = {
    "another value": (_other_value, "a value of the field's type and bounds, or of a field that is not read"),
    "a field gone": (_gone, "a field with a default, or one that is not read"),
    "a field renamed": (_renamed, "a field with a default, or one that is not read"),
    "nested deep": (_nested, "a field that is not read"),
    "a field twice": (_twice, "JSON takes the last one, and both are sound"),
    "a long number": (_long_number, "a field that is not read"),
}


def _on_document(target: Target, change: Callable[[Rng, Any, tuple[Any, ...]], str]) -> Callable[[Rng, Path], None]:
    def act(rng: Rng, root: Path) -> None:
        path = file_of(rng, root, target)
        document = json.loads(path.read_bytes())
        path.write_text(change(rng, document, rng.choice(list(_places(document)))), encoding="utf-8")

    return act


def damage_document(rng: Rng, path: Path) -> None:
    """One of the ways of changing a document, on one file of JSON."""
    document = json.loads(path.read_bytes())
    change, _ = rng.choice(list(DOCUMENT.values()))
    path.write_text(change(rng, document, rng.choice(list(_places(document)))), encoding="utf-8")


def _on_row(change: Callable[[Rng, Any, tuple[Any, ...]], str]) -> Callable[[Rng, Path], None]:
    def act(rng: Rng, root: Path) -> None:
        path = file_of(rng, root, "data")
        lines = path.read_text(encoding="utf-8").splitlines()
        for n in rng.sample(range(len(lines)), rng.choice((1, 1, len(lines)))):
            row = json.loads(lines[n])
            lines[n] = change(rng, row, rng.choice(list(_places(row))))
        path.write_text("\n".join(lines), encoding="utf-8")

    return act


def document_kinds() -> Iterator[Kind]:
    """Every way of changing a document, on configs, tokenizers and rows."""
    for name, (change, harmless) in DOCUMENT.items():
        for target in ("config", "tokenizer"):
            yield Kind(target, name, _on_document(target, change), harmless)
        yield Kind("data", f"row: {name}", _on_row(change), harmless)


# ---- the case ---------------------------------------------------------------------------------------------------
_SECTIONS: Final[dict[str, tuple[str, ...]]] = {
    "": tuple(Case.model_fields), "roles": tuple(Roles.model_fields), "roles.base": tuple(Source.model_fields),
    "roles.suspect": tuple(Source.model_fields), "data": tuple(DataFiles.model_fields),
    "data.fields": tuple(Fields.model_fields), "template": tuple(Template.model_fields),
    **{f"data.fields.{cohort}": tuple(Columns.model_fields) for cohort in get_args(Cohort)},
    "template.variables": ("x", "strftime_now"), "probes.utility": ("seed", "draws"),
}  # fmt: skip
_LITERALS: Final = (
    "true", "false", "0", "-1", "1", "7", "9223372036854775807", "9223372036854775808", "18446744073709551616",
    "-9223372036854775809", "1" + "0" * 40, "9" * 5000, "0.5", "-0.0", "1e308", "nan", "inf", "-inf", '""', '" "',
    '"\\u0000"', '"a\\u0000b"', f'"{"x" * 300}"', f'"{"x/" * 3000}"', '"\\u001b[31m"', '"\\u202E"', '"../.."', '"/"',
    '"/dev/null"', '"~"', '"~nobody"', '"."', '"base"', '"owner/name"', f'"owner/name@{"0" * 40}"', '"forget.jsonl"',
    '"{question}"', '"{question} {answer}"', '"{question!r:>9}"', '"{"', '"{answer.__class__}"', '"all"', "[]", "{}",
    "[1]", '["a"]', '[["a"]]', "[{}]", "{ a = 1 }", "{ path = 1 }", '{ path = "null" }', '[{ path = "null" }]',
    "1979-05-27", "07:32:00", "1979-05-27T07:32:00Z", "[" * 400 + "]" * 400, '"""\nx\n"""', '"always"', '"joint"',
    '"other_initialisation"', '"same_ancestor"', "0x10", "1_000", '"null"', '"ancestor"',
)  # fmt: skip


def _field(rng: Rng, root: Path) -> None:
    """A line for one field of one section, in the place of the one that is there."""
    path, section = root / "case.toml", rng.choice(list(_SECTIONS))
    key, literal = rng.choice(_SECTIONS[section]), rng.choice(_LITERALS)
    lines = path.read_text(encoding="utf-8").splitlines()
    head = f"[{section}]"
    if section in ("roles.base", "roles.suspect"):
        role = section.partition(".")[2]
        lines = [
            f'{role} = {{ path = "{role}", {key} = {literal} }}' if x.startswith(f"{role} =") else x for x in lines
        ]
        lines = [x.replace(f'path = "{role}", path =', "path =") for x in lines]
    elif section == "":
        lines = [f"{key} = {literal}", *(x for x in lines if not x.startswith(f"{key} ="))]
    elif head in lines:
        lines = [x for x in lines if not x.startswith(f"{key} =")]
        lines.insert(lines.index(head) + 1, f"{key} = {literal}")
    else:
        lines += ["", head, f"{key} = {literal}"]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _key_twice(rng: Rng, root: Path) -> None:
    path = root / "case.toml"
    lines = path.read_text(encoding="utf-8").splitlines()
    at = rng.randrange(len(lines))
    path.write_text("\n".join([*lines[: at + 1], lines[at], *lines[at + 1 :]]) + "\n", encoding="utf-8")


def _unknown_key(rng: Rng, root: Path) -> None:
    path = root / "case.toml"
    text = path.read_text(encoding="utf-8")
    name = rng.choice(("sead", "x" * 3000, '"\\u0000"', '"\\u001b[31m"', '""', "a.b.c", "roles.base", "data.forgot"))
    path.write_text(f"{name} = {rng.choice(_LITERALS)}\n{text}", encoding="utf-8")


_MORE: Final = (
    "[[roles]]\nbase = 1", "[roles]\nbase = 1", "[[data]]", "[data.forget]\na = 1", "[roles.base.path]", "roles = 7",
    "[template]\n[template.variables.x]\ny = 1", "[[probes]]\nx = 1", "[probes]\nutility = 7",
    "[probes.utility]\nseed = [1]", "[probes.nothing]\nx = 1", "[probes.utility]\nnothing = 1", "[probes.'']\nx = 1",
    "[probes.utility]\nseed = inf", "[probes.utility]\nseed = 1" + "0" * 400, "[probes.utility]\nseed = -1",
    "[\"\\u001b[31m\"]\nx = 1", "[x]\n" * 2, "[a" + ".a" * 3000 + "]", "a" + ".a" * 3000 + " = 1", "x = [" * 3000,
    "x = {a = " * 300, "# \x00", "# \u202e\x1b[31m", "\x0c", "x = '''", "x = 1979-13-45", "x = 25:00:00", "x = 1e400",
    "x = 0b2", "x = +nan", 'x = "\\ud800"', 'x = "\\U00110000"', "\ufeff", "=", "[", "x", "\u00a0", "[[a]]\n[a]",
    "\r", "x = 1" + "0" * 5000, "#" + "x" * 10**6, "\n" * 10**5,
)  # fmt: skip


def _more_lines(rng: Rng, root: Path) -> None:
    """Sections and lines that no case has, before, behind or within what is there."""
    path = root / "case.toml"
    lines = path.read_text(encoding="utf-8").splitlines()
    lines.insert(rng.choice((0, len(lines), rng.randrange(len(lines)))), rng.choice(_MORE))
    text = rng.choice(("\n", "\n", "\n", "\r\n", "\r")).join(lines)
    path.write_bytes(text.encode(rng.choice(("utf-8", "utf-8", "utf-8", "utf-8-sig", "latin-1")), errors="replace"))


CASE_KINDS: Final = (
    Kind("case", "lines that no case has", _more_lines, "a comment, or a setting of a probe that takes the value"),
    Kind("case", "a field of another value", _field, "a value of the field's type and bounds, or an unread column"),
    Kind("case", "a field of another value", _field, "a value of the field's type and bounds, or an unread column"),
    Kind("case", "a field of another value", _field, "a value of the field's type and bounds, or an unread column"),
    Kind("case", "a line twice", _key_twice, "an empty line"),
    Kind("case", "an unknown key", _unknown_key, ""),
)
