"""A draft as the text of a case file: every value with its reason, every unknown as a commented line."""

import os
import re
import textwrap
from pathlib import Path
from typing import Final, NamedTuple, get_args

from audit.case.case_text import toml_value
from audit.case.releases.chat_recipe import Open
from audit.case.releases.draft import Draft, Part
from audit.case.releases.release import Place
from audit.schema import AuditError, Cohort, Template
from audit.wording import visible

_NO_TEXT = re.compile(r"[^#]*(?<!\\)(?:\\\\)*\\ud[89a-f]")
_WIDTH: Final = 118
_COMMIT_LINE: Final = '# commit = "40 hexadecimal digits"  # of a hub id; a folder has none'
_ADVICE: Final = {
    "retain": "what was to be kept", "forget": "what was to be forgotten",
    "holdout": "same distribution as forget, never trained on: makes the answer sharper",
    "general": "questions or plain text on anything else",
}  # fmt: skip


class DraftText(NamedTuple):
    """The text of a case file, and what was filled in: (key, value, why), in the order of the text."""

    text: str
    filled: tuple[tuple[str, str, str], ...]


class _Page:
    """Lines of TOML, and what they state."""

    def __init__(self, to: Path) -> None:
        self.to = to
        self.lines: list[str] = []
        self.filled: list[tuple[str, str, str]] = []
        self._section = ""

    def section(self, name: str, title: str = "") -> None:
        """Begin a table; a name in double brackets is one of several."""
        self._section = name.strip("[]")
        self.lines += ["", f"[{name}]" + (f"  # {title}" if title else "")]

    def rule(self, title: str) -> None:
        self.lines += ["", f"# ---- {title} ".ljust(_WIDTH, "-")]

    def comment(self, text: str) -> None:
        """Text that others wrote stays a comment: nothing in it ends a line."""
        self.lines += textwrap.wrap(
            visible(text), _WIDTH, initial_indent="# ", subsequent_indent="# ", break_long_words=False,
            break_on_hyphens=False,
        )  # fmt: skip

    def state(self, key: str, value: str | float | bool, reason: str) -> None:
        """A line with its reason behind it, or above it where both are too long for one line."""
        reason, written = visible(reason), toml_value(value)
        self.filled.append((f"{self._section}.{key}".lstrip("."), str(value), reason))
        line = f"{key} = {written}"
        if len(line) + len(reason) + 4 <= _WIDTH:
            self.lines.append(f"{line}  # {reason}" if reason else line)
        else:
            self.comment(reason)
            self.lines.append(line)

    def path(self, path: Path) -> str:
        """A path as the case file names it: from its own folder, unless it lies in the hub's cache."""
        if "snapshots" in path.parts:
            return path.as_posix()
        return Path(os.path.relpath(path.resolve(), self.to.resolve())).as_posix()


def draft_text(draft: Draft, to: Path) -> DraftText:
    """The case file of a draft in the folder ``to``. The same draft gives the same bytes. AuditError (code 2) where the
    name of a file or folder is no text, which TOML cannot hold."""
    page = _Page(to)
    _head(page, draft)
    _roles(page, draft)
    _data(page, draft)
    _template(page, draft)
    if odd := next((line for line in page.lines if _NO_TEXT.match(line)), None):
        raise AuditError(f"{visible(odd)}: a name that is no text cannot be written into a case file", "rename it")
    return DraftText("\n".join(page.lines) + "\n", tuple(page.filled))


def _head(page: _Page, draft: Draft) -> None:
    page.comment("A Residua case: what is audited. Paths are relative to this file.")
    page.comment(f"Recognised in {draft.release.name}: {'; '.join(draft.recognised)}.")
    if draft.left:
        page.comment("LEFT TO FILL IN:")
        for entry in draft.left:
            page.comment(f"  [{entry.key}] {entry.description}")
    page.lines.append("")
    page.state("name", _case_name(draft.release.name), "")
    everything = draft.edited_on_all
    page.state("edited", "all" if everything else "unknown", everything or "which rows it was edited on is not known")
    page.state("seed", 0, "")
    if draft.published is not None:
        page.state("published", page.path(draft.published), "shown beside our numbers, and never judged")


def _case_name(name: str) -> str:
    """A name that a run folder may have."""
    return re.sub(r"[^\w.-]+", "-", name.split("/")[-1]).strip("-.") or "my-audit"


# ---- roles ------------------------------------------------------------------------------------------------------
def _roles(page: _Page, draft: Draft) -> None:
    page.rule("roles")
    if draft.base is None:
        likeliest = draft.candidates["base"][0].name if draft.candidates["base"] else ""
        _unknown(page, "roles.base", "the model that knew", likeliest)
    else:
        page.section("roles.base", "the model that knew")
        _part(page, draft.base)
    if draft.suspect is None:
        _unknown(page, "roles.suspect", "the model that is said to have forgotten", "")
    elif draft.base is None and draft.suspect.adapter is not None:
        page.comment("The suspect is base with this adapter: name base here too.")
        _unknown(page, "roles.suspect", "base, with the adapter", "", page.path(draft.suspect.adapter.folder))
    else:
        page.section("roles.suspect", "the model that is said to have forgotten")
        _part(page, draft.suspect)
    for part in draft.references:
        page.section("[roles.references]", "never saw the forget data" if part is draft.references[0] else "")
        _part(page, part)
    if not draft.references:
        _no_reference(page, draft)


def _no_reference(page: _Page, draft: Draft) -> None:
    candidates = draft.candidates["reference"]
    page.lines.append("")
    if draft.ancestor is not None:
        page.comment("No retrained model was found: the model before it was taught stands for never having known.")
        page.section("roles.ancestor", "before it was taught")
        _part(page, draft.ancestor)
        return
    taught = draft.benchmark is None or draft.benchmark.taught
    page.comment(
        "No model was found that never knew: levels come from other people's answers and from perturbed ones alone. "
        + ("A retrained model, or the model before it was taught, makes the answer sharper." if taught else
           "What base knows it knows from pretraining: only a model pretrained without it would be one.")
    )  # fmt: skip
    for name in candidates:
        page.comment(f"{name.reason} names {name.name}:")
    first = candidates[0].name if candidates else "owner/name"
    page.lines += ["# [[roles.references]]", f"# path = {toml_value(first)}", _COMMIT_LINE]


def _unknown(page: _Page, section: str, title: str, name: str, adapter: str = "") -> None:
    page.lines += ["", f"# [{section}]  # {title}: fill in, and take the number signs away"]
    page.lines += [f"# path = {toml_value(name or 'owner/name')}", _COMMIT_LINE]
    page.lines += [f"# adapter = {toml_value(adapter)}"] if adapter else []


def _part(page: _Page, part: Part) -> None:
    _place(page, "path", part.place, part.reason)
    if part.adapter is not None:
        adapter = part.adapter
        value = _adapter_of_hub(adapter) if adapter.hub else page.path(adapter.folder)
        page.state("adapter", value, "what `--from` named")


def _adapter_of_hub(place: Place) -> str:
    below = f"/{place.subfolder}" if place.subfolder else ""
    return f"{place.hub}@{place.commit}{below}"


def _place(page: _Page, key: str, place: Place, reason: str) -> None:
    if place.hub:
        page.state(key, place.hub, reason)
        page.state("commit", place.commit, "as the hub, or its cache here, has it now")
        if place.subfolder:
            page.state("subfolder", place.subfolder, "")
    else:
        page.state(key, page.path(place.folder / place.file), reason)


# ---- data -------------------------------------------------------------------------------------------------------
def _data(page: _Page, draft: Draft) -> None:
    page.rule("data")
    if draft.benchmark is not None:
        page.comment(f"{draft.benchmark.name}, as {draft.benchmark.data.repository} publishes it.")
    page.section("data")
    for cohort in get_args(Cohort):
        part = draft.data.get(cohort)
        absent = {} if draft.benchmark is None else draft.benchmark.absent
        if part is not None:
            page.state(cohort, page.path(part.path), f"{part.description} ({part.rows} rows)")
        elif cohort in absent:
            page.comment(f"{cohort}: {absent[cohort]}")
        elif cohort in _ADVICE:
            page.lines.append(f'# {cohort} = "data/{cohort}.jsonl"  # {_ADVICE[cohort]}')
    groups = draft.groups
    if groups is None:
        page.lines.append('# group = "author_id"  # the column that names the person, author or document of a row')
    elif groups.column:
        page.state("group", groups.column, groups.reason)
    elif groups.rows is not None:
        page.state("group_rows", groups.rows, groups.reason)


# ---- the prompt -------------------------------------------------------------------------------------------------
def _template(page: _Page, draft: Draft) -> None:
    prompting = draft.prompting
    template, plain = prompting.template, Template()
    page.rule("the prompt that the models were trained with")
    page.section("template")
    for key in ("prompt", "answer", "chat", "system", "bos", "seam", "chat_template"):
        value = getattr(template, key)
        if value != getattr(plain, key) or key in ("prompt", "answer"):
            page.state(key, value, prompting.reason.get(key, ""))
    _open_lines(page, [entry for entry in prompting.left if not entry.key.startswith("template.variables")])
    variables = [entry for entry in prompting.left if entry.key.startswith("template.variables")]
    if template.variables or variables:
        page.section("template.variables", "what the chat template reads, as it was set in training")
        for name, value in template.variables.items():
            page.state(name, value, prompting.reason.get(name, ""))
        _open_lines(page, variables)


def _open_lines(page: _Page, entries: list[Open]) -> None:
    for entry in entries:
        if entry.line:
            page.comment(entry.description)
            page.lines.append(entry.line)
