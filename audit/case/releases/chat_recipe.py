"""How a model is asked, read off its tokenizer: its chat template, what that prints of the day, and whether it thinks.

No tokenizer is opened: the text of the template is enough.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Final, NamedTuple

from audit.case.chat_template import CLOCK, chat_reads
from audit.case.releases.clues import Prompting
from audit.checkpoints import read_json
from audit.schema import ExitCode, Template, as_audit_error

SWITCHES: Final = ("enable_thinking", "thinking")
"""Variables of chat templates that say whether the model thinks before it answers (Qwen3 and others; DeepSeek)."""
THINK_OPEN, THINK_CLOSED = "<think>", "</think>"
DATES: Final = ("date_string",)
_OTHERS: Final = {"reasoning_effort": "how long it thinks (low, medium, high), as in training"}


class Open(NamedTuple):
    """Something that is not known: where it belongs in the case file, what it is, and the commented line for it."""

    key: str
    description: str
    line: str = ""


class Recipe(NamedTuple):
    """The template, why (by the field of [template], and by the variable), and what is left open."""

    template: Template
    reason: Mapping[str, str]
    left: tuple[Open, ...] = ()


def chat_source(folder: Path) -> str:
    """The default chat template of the tokenizer in a folder; empty if it has none. AuditError (code 3) where a file of
    it is broken."""
    own = folder / "chat_template.jinja"
    if own.is_file():
        with as_audit_error(f"{own}: is no text in UTF-8", "fetch or copy it again", ExitCode.INTEGRITY):
            return own.read_text(encoding="utf-8")
    for name in ("tokenizer_config.json", "chat_template.json"):
        path = folder / name
        stated = read_json(path).get("chat_template") if path.is_file() else None
        if isinstance(stated, str):
            return stated
        if isinstance(stated, list):
            candidates = {entry.get("name"): entry.get("template") for entry in stated if isinstance(entry, dict)}
            return str(candidates.get("default") or "")
    return ""


def recipe(source: str, prompting: Prompting | None) -> Recipe:
    """How to ask: as the pool does (``asked``); else by the chat template, else as plain question and answer."""
    if prompting is not None and not prompting.template.chat:
        return Recipe(prompting.template, {"prompt": prompting.reason})
    if not source:
        reason = "the tokenizer has no chat template"
        if prompting is not None:
            reason = f"{prompting.reason}, and {reason}"
        unsaid = Open("template", "the prompt that base was trained with, if it is not question, space, answer")
        return Recipe(Template(), {"prompt": f"{reason}: question, space, answer"}, (unsaid,))
    template = Template(answer="{answer}", chat=True) if prompting is None else prompting.template
    reason = {"chat": "the tokenizer has a chat template" if prompting is None else prompting.reason}
    left: list[Open] = []
    if prompting is None:
        left.append(Open("template.system", "what the system said in training, if anything", '# system = "..."'))
    variables, reasons, open_variables = _variables(source, "" if prompting is None else prompting.date)
    left += open_variables
    if _leaves_thought_open(source, variables):
        template = template.model_copy(update={"answer": f"\n{THINK_CLOSED}\n\n{{answer}}"})
        reason["answer"] = "the chat template opens a thought before the answer: it is closed empty"
    return Recipe(template.model_copy(update={"variables": variables}), reason | reasons, tuple(left))


def _variables(source: str, date: str) -> tuple[dict[str, str | bool], dict[str, str], list[Open]]:
    """The variables that are known, why, and those that are not."""
    reads, clock = chat_reads(source)
    variables: dict[str, str | bool] = {}
    reason: dict[str, str] = {}
    left: list[Open] = []
    for name in SWITCHES:
        if name in reads:
            variables[name] = False
            reason[name] = "the answers of the data have no thoughts before them"
    dated = next((name for name in DATES if name in reads), CLOCK if clock else "")
    if dated in DATES and date:
        variables[dated] = date
        reason[dated] = "the date that the prompts had in training, by the same settings"
    elif dated and clock:
        example = '"26 Jul 2024"' if dated in DATES else '"2024-07-26"'
        description = (
            "the date that the chat template printed in training; else it prints the day's, and `plan` refuses"
        )
        left.append(Open(f"template.variables.{dated}", description, f"# {dated} = {example}"))
    for name, description in _OTHERS.items():
        if name in reads:
            left.append(Open(f"template.variables.{name}", description, f'# {name} = "..."'))
    return variables, reason, left


def _leaves_thought_open(source: str, variables: Mapping[str, object]) -> bool:
    """Does the prompt end within a thought, with no switch to say otherwise? By the template's last words."""
    if variables.keys() & set(SWITCHES):
        return False
    end = source.rpartition("add_generation_prompt")[2]
    return THINK_OPEN in end and THINK_CLOSED not in end
