"""The chat template of a tokenizer: which one, what it reads, and a prompt in its words that is the same tomorrow.

A chat template is a small program. What it reads is taken from its syntax tree, and what it does with the clock is
seen by rendering every prompt under two clocks that have nothing in common. The clock that transformers gives a
template is a function; a macro of the same name, put before the template, stands in for it.
"""

import inspect
import json
from collections.abc import Mapping
from datetime import datetime
from functools import cached_property, lru_cache
from typing import Any, NamedTuple, cast

from jinja2 import meta, nodes
from jinja2.defaults import DEFAULT_NAMESPACE
from jinja2.ext import Extension
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from audit.case.picture_template import PictureTemplate
from audit.case.time_limit import within
from audit.schema import AuditError, Template, as_audit_error

CLOCK = "strftime_now"
"""The function by which a chat template asks for the time; as a variable, the date that it is given instead."""
_OURS = frozenset({"messages", "add_generation_prompt", "raise_exception", *DEFAULT_NAMESPACE})
_DATES = "residua_dates"
_STAND_IN = (
    "{%- macro strftime_now(format) -%}"
    "{{ residua_dates[format] if format in residua_dates else raise_exception('a date format that is computed') }}"
    "{%- endmacro %}\n"  # the line break goes with the tag, and the template begins at the start of a line
)
_CLOCKS = (datetime(2001, 2, 3, 4, 5, 6), datetime(2037, 11, 12, 23, 24, 25))
_EXAMPLE = datetime(2024, 7, 26)
_SENTINEL = "zqxj"
_SECONDS = 5
"""So long may a chat template take for one prompt, on a busy machine: a real one takes a millisecond."""
_MOST_ADDED = 500_000
"""So many characters may it put round a prompt."""
Variables = Mapping[str, str | int | float | bool]


class Syntax(NamedTuple):
    """What a chat template reads: variables that a user may set (the clock among them), and its date formats.

    ``chance``: it draws at random.
    """

    reads: frozenset[str]
    formats: tuple[str, ...]
    chance: bool


class _Generation(Extension):
    """The mark of transformers round what the assistant says; it prints what is in it."""

    tags = {"generation"}

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


@lru_cache(maxsize=32)
def syntax_of(source: str) -> Syntax:
    """What a chat template reads, from its syntax tree. AuditError (code 2) if it is no template."""
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, "jinja2.ext.loopcontrols"]
    )
    with as_audit_error("the tokenizer's chat template cannot be read", "save the tokenizer with another one"):
        tree = environment.parse(source)
        names = meta.find_undeclared_variables(tree)
    calls = [c for c in tree.find_all(nodes.Call) if isinstance(c.node, nodes.Name) and c.node.name == CLOCK]
    given = [value for call in calls for value in (*call.args, *(keyword.value for keyword in call.kwargs))]
    formats = [v.value for v in given if isinstance(v, nodes.Const) and isinstance(v.value, str)]
    chance = "lipsum" in names or any(use.name == "random" for use in tree.find_all(nodes.Filter))
    return Syntax(frozenset(names - _OURS), tuple(dict.fromkeys(formats)), chance)


def source_of(tokenizer: Any, name: str = "") -> str:
    """The chat template of that name, or the only or the default one. AuditError (code 2) if there is none."""
    several = _templates(tokenizer)
    if not several:
        do = "set `chat = false` in [template], or save the chat template with the base's tokenizer"
        raise AuditError("[template] asks for a chat template and the tokenizer has none", do)
    if (name or "default") in several:
        return several[name or "default"]
    names = ", ".join(repr(known) for known in sorted(several))
    asks = f"asks for {name!r}" if name else "names none, and none is the default"
    do = "name the one that base was trained with: `chat_template = ...` in [template]"
    raise AuditError(f"the tokenizer's chat templates are {names}; [template] {asks}", do)


def chat_template_names(tokenizer: Any) -> tuple[str, ...]:
    """The names of the tokenizer's chat templates; of the only and of the default one an empty string."""
    return tuple(sorted("" if name == "default" else name for name in _templates(tokenizer)))


def _templates(tokenizer: Any) -> dict[str, str]:
    """The tokenizer's chat templates by name. What is no text is none: a settings file may put anything there."""
    available: Any = getattr(tokenizer, "chat_template", None)
    several = cast("dict[Any, Any]", available) if isinstance(available, dict) else {"default": available}
    return {str(name): text for name, text in several.items() if isinstance(text, str) and text}


def with_date(tokenizer: Any, template: Template, question: str) -> Template:
    """The template, with an example of a date where its chat template prints the date of the day. AuditError (code 2)
    where it is refused for another reason."""
    needed = ChatPrompt(tokenizer, template).date_needed(template.prompt.replace("{question}", question))
    return template.model_copy(update={"variables": {**template.variables, **needed}})


class ChatPrompt:
    """Puts a question into the words of the tokenizer's chat template, up to where the model answers.

    AuditError (code 2): no such chat template, variables that it does not read, a prompt that it refuses, or one that
    would be another tomorrow.
    """

    def __init__(self, tokenizer: Any, template: Template) -> None:
        self._tokenizer, self._template = tokenizer, template
        pictured = isinstance(template, PictureTemplate)
        self._marker, self._expansion = (template.marker, template.expansion) if pictured else ("", "")
        self._source = source_of(tokenizer, template.chat_template)
        self._syntax = syntax_of(self._source)
        self._variables = {name: value for name, value in template.variables.items() if name != CLOCK}
        self._switches = {name: value for name, value in self._variables.items() if _means_switch(value)}
        self._check_variables()
        if self._syntax.chance:
            do = "save the tokenizer with a chat template that always says the same"
            raise AuditError("the tokenizer's chat template draws at random: every prompt would be another", do)

    def __call__(self, prompt: str) -> str:
        """The rendered prompt."""
        self._check_switches(prompt)
        if CLOCK not in self._syntax.reads:
            return self._rendered(prompt, self._variables)
        if self._date is not None:
            return self._rendered(prompt, self._variables, self._date)
        early, late = (self._rendered(prompt, self._variables, clock) for clock in _CLOCKS)
        if early == late:
            return early
        [(name, date)] = self.date_needed(prompt).items()
        raise AuditError(
            "the tokenizer's chat template prints the date of the day: the same case would ask another prompt tomorrow",
            "set the date that base was trained with in case.toml, for instance\n"
            f'[template.variables]\n{name} = "{date}"',
        )

    def date_needed(self, prompt: str) -> dict[str, str]:
        """The variable that fixes the date, and an example of one: empty where nothing depends on the clock."""
        if CLOCK not in self._syntax.reads or self._date is not None:
            return {}
        early, late = (self._rendered(prompt, self._variables, clock) for clock in _CLOCKS)
        if early == late:
            return {}
        fixing = sorted((name for name in self._syntax.reads - {CLOCK} if self._fixes_date(prompt, name)), key=_rank)
        style = self._syntax.formats[0] if fixing and self._syntax.formats else "%Y-%m-%d"
        return {fixing[0] if fixing else CLOCK: _EXAMPLE.strftime(style)}

    # ---- variables -----------------------------------------------------------------------------------------------
    def _check_variables(self) -> None:
        call = inspect.signature(self._tokenizer.apply_chat_template).parameters
        readable = self._syntax.reads - call.keys()
        strange = sorted(self._template.variables.keys() - readable)
        if strange:
            offered = f"it reads {', '.join(sorted(readable))}" if readable else "it reads none"
            problem = f"[template.variables] {', '.join(strange)}: not read by the tokenizer's chat template; {offered}"
            raise AuditError(problem, "correct the name, or take the variable out")

    def _check_switches(self, prompt: str) -> None:
        """AuditError (code 2) for a text or a number that changes nothing where true or false would: on one prompt."""
        switches, self._switches = self._switches, dict[str, str | int | float | bool]()
        for name, value in switches.items():
            rest = {other: given for other, given in self._variables.items() if other != name}
            meant = str(value).casefold() in ("true", "1")
            ways = (rest, self._variables, rest | {name: meant})
            unset, given, switched = (self._rendered(prompt, variables, _CLOCKS[0]) for variables in ways)
            if given == unset != switched:
                do = f"write `{name} = {json.dumps(meant)}`, without quotes"
                raise AuditError(f"[template.variables] {name} = {json.dumps(value)} changes nothing in the prompt", do)

    @cached_property
    def _date(self) -> datetime | None:
        """The date that stands for the template's clock, where one is given."""
        given = self._template.variables.get(CLOCK)
        try:
            return None if given is None else datetime.fromisoformat(str(given))
        except ValueError:
            do = f'write it as year, month and day: {CLOCK} = "{_EXAMPLE:%Y-%m-%d}"'
            raise AuditError(f"[template.variables] {CLOCK} = {given!r} is no date", do) from None

    # ---- rendering -----------------------------------------------------------------------------------------------
    def _rendered(self, prompt: str, variables: Variables, clock: datetime | None = None) -> str:
        text = self._said(prompt, variables, clock, self._in_parts)
        return text.replace(self._marker, self._expansion) if "user" in self._in_parts and self._marker else text

    @cached_property
    def _in_parts(self) -> frozenset[str]:
        """The roles whose turns the template wants as lists of parts, not as texts: seen by what it does with either.

        A picture is a part where the template takes parts; else its tokens stand in the text.
        """
        ways = [frozenset[str](), frozenset({"user"}), frozenset({"system"}), frozenset({"user", "system"})]
        if self._marker:
            ways.sort(key=lambda roles: "user" not in roles)
        return next((roles for roles in ways if self._is_read(roles)), ways[0] if not self._marker else frozenset())

    def _is_read(self, in_parts: frozenset[str]) -> bool:
        """Do the words of a turn, the system's and a picture reach the prompt, each once and as they are?"""
        picture = self._marker if "user" in in_parts else ""
        clock = _CLOCKS[0] if CLOCK in self._syntax.reads else None
        try:
            text = self._said(self._expansion + _SENTINEL, self._variables, clock, in_parts)
        except AuditError:
            return False
        quoted = any(f"{mark}{_SENTINEL}{mark}" in text for mark in ("'", '"'))
        entire = _SENTINEL in text and not quoted and self._template.system.strip() in text
        return entire and (not picture or text.count(picture) == 1)

    def _said(self, prompt: str, variables: Variables, clock: datetime | None, in_parts: frozenset[str]) -> str:
        """What the template makes of a prompt; a picture in parts is its marker still."""
        messages: list[dict[str, Any]] = []
        if system := self._template.system:
            parts = [{"type": "text", "text": system}]
            messages.append({"role": "system", "content": parts if "system" in in_parts else system})
        messages.append({"role": "user", "content": self._parts(prompt) if "user" in in_parts else prompt})
        source, given = self._source, dict[str, Any](variables)
        if clock is not None:
            source, given[_DATES] = _STAND_IN + source, {form: clock.strftime(form) for form in self._syntax.formats}
        with as_audit_error("the tokenizer's chat template refuses the prompt", "change [template]"), within(_SECONDS):
            text: str = self._tokenizer.apply_chat_template(
                messages, tokenize=False, add_generation_prompt=True, chat_template=source, **given
            )
        if len(text) - len(prompt) > _MOST_ADDED:
            do = "save the tokenizer with the chat template that base was trained with"
            raise AuditError(f"the tokenizer's chat template makes {len(text)} characters of a prompt", do)
        return text

    def _parts(self, prompt: str) -> list[dict[str, str]]:
        """A user's turn as parts: its words, and the picture where its tokens stand."""
        if not self._expansion or self._expansion not in prompt:
            return [{"type": "text", "text": prompt}]
        before, _, after = prompt.partition(self._expansion)
        words = [[{"type": "text", "text": text.strip()}] if text.strip() else [] for text in (before, after)]
        return [*words[0], {"type": "image"}, *words[1]]

    def _fixes_date(self, prompt: str, name: str) -> bool:
        """Does the prompt say what this variable is set to, and no longer what the clock says?"""
        try:
            tried = {**self._variables, name: _SENTINEL}
            early, late = (self._rendered(prompt, tried, clock) for clock in _CLOCKS)
        except AuditError:
            return False
        return early == late and _SENTINEL in early


def _rank(name: str) -> tuple[bool, str]:
    return "date" not in name, name


def _means_switch(value: str | int | float | bool) -> bool:
    """Is it true or false, written as a text or a number?"""
    return not isinstance(value, bool) and str(value).casefold() in ("true", "false", "0", "1")


def chat_reads(source: str) -> tuple[frozenset[str], bool]:
    """The variables that a chat template reads, and whether it may ask for the time. AuditError (code 2) if it is no
    template."""
    reads = syntax_of(source).reads
    return reads - {CLOCK}, CLOCK in reads
