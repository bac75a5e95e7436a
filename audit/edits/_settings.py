"""An edit by its name, with settings as they are typed: checked against its fields, all faults at once."""

import difflib
from collections.abc import Sequence

from pydantic import ValidationError

from audit.edits._edit import Edit
from audit.edits._listing import PACKAGE
from audit.plugins import discover
from audit.schema import AuditError


def edit_named(name: str) -> type[Edit]:
    """The edit of that name. AuditError (code 2) for a name that is none, with the nearest."""
    edits = discover(PACKAGE, Edit)
    if name not in edits:
        near = difflib.get_close_matches(name, edits, n=1, cutoff=0.5)
        meant = f"did you mean {near[0]!r}? " if near else ""
        raise AuditError(f"there is no edit {name!r}", f"{meant}`residua edit --list` names all {len(edits)}")
    return edits[name]


def configured_edit(name: str, stated: Sequence[str]) -> Edit:
    """The edit with these settings, each ``name=value``; commas part the values of a setting that has several.

    AuditError (code 2) lists everything that is wrong, and the settings that there are.
    """
    cls = edit_named(name)
    values, faults = dict[str, str | list[str]](), list[str]()
    for pair in stated:
        key, equals, value = pair.partition("=")
        key = key.strip()
        if not equals or not key:
            faults.append(f"{pair!r} is not of the form name=value")
        elif key in values:
            faults.append(f"`{key}` is stated twice")
        elif key not in cls.model_fields:
            near = difflib.get_close_matches(key, cls.model_fields, n=1, cutoff=0.5)
            faults.append(f"it has no setting `{key}`" + (f"; did you mean `{near[0]}`?" if near else ""))
        else:
            several = str(cls.model_fields[key].annotation).startswith(("tuple", "list", "frozenset"))
            values[key] = [part.strip() for part in value.split(",")] if several else value.strip()
    edit: Edit | None = None
    try:
        edit = cls.model_validate_strings(values)
    except ValidationError as error:
        faults += [_fault(e["loc"], e["msg"]) for e in error.errors()]
    if edit is None or faults:
        raise AuditError(f"{name}: {'; '.join(dict.fromkeys(faults))}", f"its settings: {settings_in_words(cls)}")
    return edit


def settings_in_words(cls: type[Edit]) -> str:
    """The settings of an edit with their defaults, as they would be typed."""
    stated = [f"{name}={field.get_default()}" for name, field in cls.model_fields.items()]
    return ", ".join(stated) or "none"


def _fault(loc: tuple[int | str, ...], message: str) -> str:
    where = f"`{loc[0]}`: " if loc else ""
    return where + message.removeprefix("Value error, ")[:1].lower() + message.removeprefix("Value error, ")[1:]
