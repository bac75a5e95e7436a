"""Pages of the documentation that are made from the sources when it is built: nothing of them is committed.

A hook of mkdocs. Lists of probes, edits and commands are read from their files and from the parser, families and
formats from the records of the studies. Pages of the repository (CONTRIBUTING.md, the notes of the studies) are taken
in as they are; links between them, and from the pages of this folder to them, lead to the page on the site.
"""

import argparse
import html
import posixpath
import re
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Final

from audit.cli import flags
from audit.cli.parser import build_parser
from audit.edits import ListedEdit, listed_edits
from audit.judging import decision_rule
from audit.plugins import Description, Setting, describe
from audit.review import MEANINGS
from audit.schema import Requires

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files
    from mkdocs.structure.pages import Page

ROOT: Final = Path(__file__).resolve().parents[1]
OF_THE_REPOSITORY: Final = {
    "CONTRIBUTING.md": "contributing.md", "ARCHITECTURE.md": "architecture.md", "SECURITY.md": "security.md",
    "CHANGELOG.md": "changelog.md",
}  # fmt: skip
"""Pages outside the folder of the documentation, by their names on the site; the studies' notes join them."""
RULE: Final = "<!-- generated: decision rule -->"
_LINK: Final = re.compile(r"(!?)\[([^\]]*)\]\((?!https?:|mailto:|#)([^)#\s]+)(#[^)\s]*)?\)")


def repository_pages() -> dict[str, str]:
    """Path in the repository -> path on the site, of every page that is taken in."""
    notes = sorted(path.relative_to(ROOT).as_posix() for path in ROOT.glob("studies/*/README.md"))
    return OF_THE_REPOSITORY | {path: f"studies/{path.split('/')[1]}.md" for path in notes}


# ---- links ------------------------------------------------------------------------------------------------------
def relinked(text: str, source: str, target: str, taken: dict[str, str]) -> tuple[str, set[str]]:
    """The page at ``source`` of the repository as it stands at ``target`` on the site, and the images that it shows.

    A link to what is not on the site becomes plain text; code blocks are left as they are.
    """
    images: set[str] = set()

    def link(match: re.Match[str]) -> str:
        shown, words, path, anchor = match[1], match[2], match[3], match[4] or ""
        place = posixpath.normpath(posixpath.join(posixpath.dirname(source), path))
        inside = taken.get(place) or (place.removeprefix("docs/") if place.startswith("docs/") else "")
        if shown and (ROOT / place).is_file():
            images.add(place)
            inside = inside or place
        if not inside:
            return words if words.startswith("`") else f"{words} (`{place}`)"
        return f"{shown}[{words}]({posixpath.relpath(inside, posixpath.dirname(target) or '.')}{anchor})"

    parts = re.split(r"(^```.*?^```)", text, flags=re.MULTILINE | re.DOTALL)
    return "".join(part if part.startswith("```") else _LINK.sub(link, part) for part in parts), images


# ---- lists ------------------------------------------------------------------------------------------------------
def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;")


def _code(text: str) -> str:
    """Code in a cell of a table, in which a stroke would end the cell."""
    return f"<code>{html.escape(' '.join(text.split()), quote=False).replace('|', '&#124;')}</code>"


def _paragraphs(docstring: str) -> str:
    """A docstring as Markdown, without its first line; each section is a paragraph of its own."""
    body = docstring.strip().partition("\n")[2]
    lines = [f"\n{line}" if re.match(r"(Null|Positive control|Blind to|Cite): ", line) else line
             for line in body.splitlines()]  # fmt: skip
    text = re.sub(r"^(Null|Positive control|Blind to|Cite): ", r"**\1:** ", "\n".join(lines), flags=re.MULTILINE)
    return re.sub(r":\w+:`~?([^`]+)`", r"`\1`", text.replace("``", "`")).replace("<", "&lt;").strip()


def _settings(settings: tuple[Setting, ...], where: str) -> str:
    if not settings:
        return ""
    rows = "\n".join(f"| {_code(s.name)} | {_code(s.annotation)} | {_code(s.default or 'none')} |" for s in settings)
    return f"{where}\n\n| setting | type | default |\n|---|---|---|\n{rows}\n\n"


def _needs(probe: Description) -> str:
    stated = dict(probe.requires)
    stated.setdefault("modalities", repr(Requires().modalities))
    words = {name: re.sub(r"[()'\"]|Op\.", "", value).strip(", ").lower() for name, value in stated.items()}
    return "; ".join(f"{name} *{value or 'none'}*" for name, value in words.items())


def probes_page() -> str:
    """Every probe: its question, null, control and blind spots, what it needs, its settings."""
    listed = describe("probes")
    parts = [
        "# Probes\n",
        f"There are {len(listed)} probes. A probe asks one question of the models and judges nothing.",
        "`residua probes` prints this list, `residua probes NAME` one probe in full.",
        "[Adding a probe](contributing.md#a-probe-one-file) is one file.\n",
    ]
    for probe in listed:
        parts.append(f"## {probe.name}\n\n*{_cell(probe.question)}*\n\n{_paragraphs(probe.docstring)}\n")
        attack = f" It makes an attack: {probe.attack}." if probe.attack else ""
        parts.append(f"Version {probe.version}. Needs: {_needs(probe)}.{attack}\n")
        parts.append(_settings(probe.settings, f"Settings, in the case file under `[probes.{probe.name}]`:"))
    return "\n".join(parts)


def edits_page() -> str:
    """Every edit: what it does, needs, costs, fits."""
    listed: tuple[ListedEdit, ...] = listed_edits()
    rows = [f"| [`{e.name}`](#{e.name}) | {_cell(e.does)} | {e.needs_in_words} | {_cell(e.cost)} |" for e in listed]
    parts = [
        "# Edits\n",
        f"There are {len(listed)} edits. An edit changes a model: it unlearns, hides or attacks.",
        "`residua edit --list` prints this list. [To make a suspect](suspects.md) says how they are used.\n",
        "| edit | what it does | reads | costs |\n|---|---|---|---|",
        *rows,
        "",
    ]
    for edit in listed:
        merged = "It can be written as plain weights." if edit.folds else "It plays beside the weights."
        parts.append(f"## {edit.name}\n\n*{_cell(edit.does)}*\n\n{_paragraphs(edit.help)}\n")
        parts.append(f"Fits {edit.fits}. {merged}\n")
        parts.append(_settings(edit.settings, f"Settings, as `--set NAME=VALUE` of `--edit {edit.name}`:"))
    return "\n".join(parts)


def commands_page() -> str:
    """Every command with its arguments, from the parser."""
    parser = build_parser()
    shared = argparse.ArgumentParser(add_help=False)
    flags.add_output(shared)
    parts = ["# Command line\n", f"{parser.description}\n", "Answers are on stdout, progress and warnings on stderr.\n"]
    parts += [_arguments(parser), "## Flags of every command\n", _arguments(shared), _exit_codes()]
    every = {name for action in shared._actions for name in action.option_strings}
    for name, about, each in _verbs(parser):
        parts.append(f"{'#' * (2 + name.count(' '))} {name}\n\n{_cell(about)}\n")
        parts.append(_arguments(each, every))
    return "\n".join(parts)


def _verbs(parser: argparse.ArgumentParser, before: str = "") -> Iterator[tuple[str, str, argparse.ArgumentParser]]:
    """Every verb with its help and parser, and after it the verbs below it."""
    for verbs in parser._actions:
        if isinstance(verbs, argparse._SubParsersAction):
            about = {action.dest: action.help or "" for action in verbs._choices_actions}
            for name, each in verbs.choices.items():
                yield f"{before}{name}", about.get(name, ""), each
                yield from _verbs(each, f"{before}{name} ")


def _arguments(parser: argparse.ArgumentParser, but: Collection[str] = ()) -> str:
    """The arguments of a parser as a table, without the help and those that are shown elsewhere."""
    rows: list[str] = []
    for action in parser._actions:
        listed = isinstance(action, argparse._SubParsersAction) or action.help == argparse.SUPPRESS
        if listed or isinstance(action, argparse._HelpAction) or set(action.option_strings) & set(but):
            continue
        values = action.metavar or "|".join(map(str, action.choices or ())) or action.dest.upper()
        shown = values if isinstance(values, str) else " ".join(values)
        taken = "" if action.nargs == 0 else f" {shown}"
        names = f"{', '.join(action.option_strings)}{taken}" if action.option_strings else shown
        rows.append(f"| {_code(names)} | {_cell((action.help or '').replace('%%', '%'))} |")
    return "| argument | what it does |\n|---|---|\n" + "\n".join(rows) + "\n" if rows else ""


def _exit_codes() -> str:
    rows = "\n".join(f"| {code} | {_cell(meaning)} |" for code, meaning in MEANINGS)
    return f"## Exit codes\n\n| code | meaning |\n|---|---|\n{rows}\n"


# ---- records ----------------------------------------------------------------------------------------------------
def _section(note: str) -> str:
    """The tables of a study's note: what stands between the marks that its own command writes between."""
    found = re.search(r"^<!-- \w+: made by .*?-->\n(.*?)^<!-- end of", (ROOT / note).read_text("utf-8"), re.M | re.S)
    if found is None:
        raise ValueError(f"{note} has no tables between marks")
    return found[1]


def families_page() -> str:
    """Which families and formats open, from the records of two studies."""
    from studies.families.page import read_audits, read_families, summary

    formats = [line for line in _section("studies/quantised/README.md").splitlines() if line.startswith("|")]
    return "\n".join([
        "# Families and formats\n", summary(read_families(), read_audits()), "",
        "How this was found: [studies/families](../studies/families/README.md). It says that hooks tell the truth.",
        "It says nothing of what the models know.\n",
        "## Families\n", _section("studies/families/README.md"), "## Formats of quantised weights\n",
        "A release in codes is opened as a float copy. The copy is made once and kept by content.",
        "`error` is the size of what the format moved, over the size of the weights.",
        "`difference` is the largest between the release's audit and that of the same weights in a plain folder.",
        "How this was found: [studies/quantised](../studies/quantised/README.md).\n", *formats, "",
    ])  # fmt: skip


def studies_page() -> str:
    """The studies' notes by their titles."""
    rows: list[str] = []
    for source in repository_pages():
        if source.startswith("studies/"):
            title = (ROOT / source).read_text(encoding="utf-8").partition("\n")[0].lstrip("# ")
            rows.append(f"| [{source.split('/')[1]}](../{source}) | {_cell(title)} |")
    return "\n".join([
        "# Studies\n", "A study asks one question with a command of its own, and keeps its numbers beside it.\n",
        "| study | question |\n|---|---|", *rows, "",
    ])  # fmt: skip


GENERATED: Final[dict[str, Callable[[], str]]] = {
    "probes.md": probes_page, "edits.md": edits_page, "commands.md": commands_page, "families.md": families_page,
    "studies.md": studies_page,
}  # fmt: skip


# ---- mkdocs -----------------------------------------------------------------------------------------------------
def made() -> Iterator[tuple[str, str]]:
    """Path on the site and text of every page that no file of this folder holds."""
    taken = repository_pages()
    for name, page in GENERATED.items():
        yield name, relinked(page(), f"docs/{name}", name, taken)[0]
    for source, target in taken.items():
        yield target, relinked((ROOT / source).read_text(encoding="utf-8"), source, target, taken)[0]


def shown_images() -> set[str]:
    """Images, by their paths in the repository, of the pages that are taken in."""
    taken = repository_pages()
    each = (relinked((ROOT / path).read_text(encoding="utf-8"), path, page, taken)[1] for path, page in taken.items())
    own = (relinked(path.read_text(encoding="utf-8"), f"docs/{path.name}", path.name, taken)[1]
           for path in (ROOT / "docs").glob("*.md"))  # fmt: skip
    return {image for images in (*each, *own) for image in images if not image.startswith("docs/")}


def on_files(files: "Files", config: "MkDocsConfig") -> "Files":
    """Adds what is made."""
    from mkdocs.structure.files import File

    for name, text in made():
        files.append(File.generated(config, name, content=text))
    for image in sorted(shown_images()):
        files.append(File.generated(config, image, abs_src_path=str(ROOT / image)))
    return files


def on_page_markdown(markdown: str, page: "Page", config: "MkDocsConfig", files: "Files") -> str:
    """Links of this folder's pages into the repository lead to the site; the rule is that of the code."""
    path = page.file.src_uri
    if (ROOT / "docs" / path).is_file():
        markdown = relinked(markdown, f"docs/{path}", path, repository_pages())[0]
    return markdown.replace(RULE, "\n".join(f"- {_numbered(line)}" for line in decision_rule()))


def _numbered(line: str) -> str:
    head, dot, rest = line.partition(". ")
    return f"**{head}.** {rest}" if dot and head.isdigit() else line
