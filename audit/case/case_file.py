"""The case file: TOML in, a Case out, or everything that is wrong with it at once."""

import difflib
import re
import tomllib
from pathlib import Path
from typing import Any, NamedTuple, Self, get_args

from pydantic import ValidationError

from audit.case.fields import ANSWERS, QUESTIONS
from audit.schema import AuditError, Case, Cohort, Columns, DataFiles, Fields, Roles, Source, Template
from audit.storage import refuse_special

_UNFILLED = re.compile(r"(?<![\\\w{$])\{(system|instruction|input|context|query|response|output|[be]os(?:_token)?)\}")
"""Places that other tools fill in a prompt; here they would be read as they stand."""
_SECTIONS: dict[str, tuple[str, ...]] = {
    "": tuple(Case.model_fields), "roles": tuple(Roles.model_fields), "roles.base": tuple(Source.model_fields),
    "roles.suspect": tuple(Source.model_fields), "roles.ancestor": tuple(Source.model_fields),
    "roles.references": tuple(Source.model_fields), "data": tuple(DataFiles.model_fields),
    "template": tuple(Template.model_fields), "data.fields": tuple(Fields.model_fields),
    **{f"data.fields.{cohort}": tuple(Columns.model_fields) for cohort in get_args(Cohort)},
}  # fmt: skip


class CaseFile(NamedTuple):
    """A case as it was read, and the folder that its relative paths start from. It is parsed once and handed on."""

    case: Case
    root: Path

    @classmethod
    def read(cls, path: Path) -> Self:
        """:func:`load_case`, with the folder of the file."""
        return cls(load_case(path), path.resolve().parent)

    @classmethod
    def read_forecast(cls, path: Path) -> Self:
        """:func:`load_forecast`, with the folder of the file."""
        return cls(load_forecast(path), path.resolve().parent)

    @classmethod
    def read_unedited(cls, path: Path) -> Self:
        """:func:`load_case`, but a case without a suspect is one too: base stands for it until there is one."""
        document = _document(path)
        roles = document.get("roles")
        if isinstance(roles, dict) and "base" in roles and "suspect" not in roles:
            document = document | {"roles": {**roles, "suspect": roles["base"]}}
        return cls(_case_of(path, document), path.resolve().parent)


def load_case(path: Path) -> Case:
    """The case in a TOML file; its paths stay relative to the file. AuditError (code 2) lists every fault at once."""
    return _case_of(path, _document(path))


def load_forecast(path: Path) -> Case:
    """The case of a forecast: as :func:`load_case`, but nobody has forgotten yet, and base stands for the suspect."""
    document = _document(path)
    roles = document.get("roles")
    if isinstance(roles, dict) and "base" in roles:
        sources: dict[str, Any] = {name: roles[name] for name in ("base", "ancestor") if name in roles}
        others = {name: part for name, part in roles.items() if name not in Roles.model_fields}
        document = document | {"roles": {**sources, **others, "suspect": sources["base"]}}
    return _case_of(path, document)


def _document(path: Path) -> dict[str, Any]:
    refuse_special(path, in_memory=True)
    try:
        return tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise AuditError(f"{path}: cannot be read ({error.strerror})", "`residua init` writes a case file") from None
    except RecursionError:
        raise AuditError(f"{path}: not TOML: nested too deep to be read", "write it flat") from None
    except ValueError as error:  # of TOML, of UTF-8, of a number with more digits than Python reads
        raise AuditError(f"{path}: not TOML: {error}", "correct the line; strings need quotes") from None


def _case_of(path: Path, document: dict[str, Any]) -> Case:
    faults: list[str] = []
    case: Case | None = None
    try:
        case = Case.model_validate(document)
    except ValidationError as error:
        faults += [_fault(e["type"], e["loc"], e["msg"]) for e in error.errors()]
    faults += _template_faults(document.get("template"))
    if case is None or faults:
        lines = "\n  - ".join(dict.fromkeys(faults))
        raise AuditError(f"{path}: not a case:\n  - {lines}", "correct these entries; `residua init` shows all keys")
    return case


def _fault(kind: str, loc: tuple[int | str, ...], message: str) -> str:
    """One fault in the words of the file."""
    steps = [part for part in loc if isinstance(part, str) and not part.startswith(("literal[", "tuple["))]
    section, name = ".".join(steps[:-1]), steps[-1] if steps else ""
    where = f"[{section}] " if section else ""
    if kind == "missing":
        return f"{where}`{name}` is missing"
    if loc[:2] == ("template", "variables") and len(loc) > 2:
        return f"[template.variables] `{loc[2]}`: must be a text (in quotes, a date too), a number, true or false"
    if kind != "extra_forbidden":
        message = message.removeprefix("Value error, ")
        return f"{where}`{name}`: {message[0].lower()}{message[1:]}"
    role = next((r for r, names in (("question", QUESTIONS), ("answer", ANSWERS)) if name in names), "")
    if role and section.startswith("data.fields"):
        return f'{where}unknown key `{name}`: did you mean `{role} = "{name}"`?'
    near = difflib.get_close_matches(name, _SECTIONS.get(section, ()), n=1, cutoff=0.5)
    if near:
        return f"{where}unknown key `{name}`: did you mean `{near[0]}`?"
    elsewhere = {key: place for place, keys in _SECTIONS.items() for key in keys}
    near = difflib.get_close_matches(name, elsewhere, n=1, cutoff=0.75)
    if near:
        place = f"in [{elsewhere[near[0]]}]" if elsewhere[near[0]] else "before the first section"
        return f"{where}unknown key `{name}`: did you mean `{near[0]}` {place}?"
    return f"{where}unknown key `{name}`; known are {', '.join(_SECTIONS.get(section, ()))}"


def _template_faults(template: Any) -> list[str]:
    """A template that drops the question or the answer, or states what only a chat template reads."""
    if not isinstance(template, dict):
        return []
    chat_alone = ("chat_template", "system", "variables")
    unread = [] if template.get("chat") else [key for key in chat_alone if template.get(key)]  # pyright: ignore
    faults = [f"[template] `{key}`: only a chat template reads it, and `chat` is not true" for key in unread]
    faults += [
        f"[template] `{key}`: `{place[0]}` would be read as it stands: only {{{word}}} is filled in"
        for key, word in (("prompt", "question"), ("answer", "answer"))
        if isinstance(text := template.get(key), str) and (place := _UNFILLED.search(text))  # pyright: ignore
    ]
    return faults + [
        f"[template] `{key}`: must contain {{{word}}} once"
        for key, word in (("prompt", "question"), ("answer", "answer"))
        if isinstance(text := template.get(key), str) and text.count(f"{{{word}}}") != 1  # pyright: ignore
    ]
