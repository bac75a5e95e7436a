"""A chat template is a program of the user's: which one runs, what it reads, and that it asks the same tomorrow."""

import signal
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path

import pytest
from transformers import AddedToken, PreTrainedTokenizerFast
from transformers.utils import chat_template_utils

from audit.case import chat_template, chat_template_names, load_case
from audit.case.chat_template import syntax_of, with_date
from audit.case.time_limit import within
from audit.schema import AuditError, Template
from tests.case.test_rows import CHAT, KINDS, OTHER, rows_of

LLAMA = (
    "{%- if not date_string is defined %}\n"
    "    {%- if strftime_now is defined %}\n"
    '        {%- set date_string = strftime_now("%d %b %Y") %}\n'
    "    {%- else %}\n"
    '        {%- set date_string = "26 Jul 2024" %}\n'
    "    {%- endif %}\n"
    "{%- endif %}\n"
    "{{ 'Today ' + date_string + ' ' }}" + CHAT
)
PLAIN_DATE = "{{ strftime_now('%Y-%m-%d') }} " + CHAT
IN_A_MACRO = "{% macro today() %}{{ strftime_now(format='%d %B %Y') }}{% endmacro %}{{ today() | upper }} " + CHAT
AT_NIGHT = "{% if strftime_now('%H') | int > 12 %}Good evening. {% endif %}" + CHAT
COMPUTED = "{{ strftime_now('%d ' + messages[0].role) }} " + CHAT
UNUSED = "{% if tools %}{{ strftime_now('%Y') }}{% endif %}" + CHAT
IN_A_LOOP = "  {% for n in range(2) %}\n  {{ strftime_now('%Y') }}\n  {% endfor %}\n" + CHAT


def with_chat(*sources: str, **several: str) -> PreTrainedTokenizerFast:
    tokenizer = KINDS["byte_level"]()
    tokenizer.chat_template = dict(several) if several else sources[0]
    return tokenizer


def read(tokenizer: PreTrainedTokenizerFast, **template: object) -> str:
    """What the model reads."""
    rows = rows_of(tokenizer, OTHER, template=Template(chat=True, **template))  # pyright: ignore
    return str(tokenizer.decode(rows.ids[0], skip_special_tokens=False))


# ---- a template that no tokenizer should have -------------------------------------------------------------------
def test_a_template_that_never_ends_is_refused_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chat_template, "_SECONDS", 0.2)
    loop = "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"
    with pytest.raises(AuditError, match=r"refuses the prompt: TimeoutError: not done after 0\.2 s") as caught:
        read(with_chat(loop + CHAT))
    assert caught.value.code == 2
    assert signal.getitimer(signal.ITIMER_REAL) == (0, 0)


def test_an_alarm_that_is_set_outlives_the_limit() -> None:
    before = signal.signal(signal.SIGALRM, lambda *_: None)
    signal.alarm(50)
    with pytest.raises(TimeoutError, match="not done"), within(0.05):
        time.sleep(5)
    left = signal.alarm(0)
    signal.signal(signal.SIGALRM, before)
    assert 0 < left <= 50


def test_only_the_main_thread_is_limited() -> None:
    def work() -> str:
        with within(0.01):
            time.sleep(0.1)
        return "done"

    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(work).result() == "done"


def test_a_template_that_makes_a_book_of_a_prompt_is_refused() -> None:
    with pytest.raises(AuditError, match="makes 600[0-9]{3} characters of a prompt") as caught:
        read(with_chat("{{ 'x ' * 300000 }}" + CHAT))
    assert caught.value.code == 2


def test_what_is_no_text_is_no_chat_template() -> None:
    tokenizer = with_chat(default=CHAT, other=7)  # pyright: ignore[reportArgumentType]
    assert chat_template_names(tokenizer) == ("",)
    for nothing in (7, {"a": []}, AddedToken("x")):
        tokenizer.chat_template = nothing  # pyright: ignore[reportAttributeAccessIssue]
        assert chat_template_names(tokenizer) == ()
        with pytest.raises(AuditError, match="has none"):
            read(tokenizer)


# ---- the time ------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("source", [LLAMA, PLAIN_DATE, IN_A_MACRO, AT_NIGHT, IN_A_LOOP])
def test_a_prompt_that_would_be_another_tomorrow_is_refused_with_the_line_that_fixes_it(source: str) -> None:
    tokenizer = with_chat(source)
    with pytest.raises(AuditError, match="another prompt tomorrow") as caught:
        read(tokenizer)
    assert caught.value.code == 2
    _, _, lines = caught.value.do.partition("[template.variables]\n")
    name, value = lines.split(" = ")
    shown = read(tokenizer, variables={name: value.strip('"')})
    assert name == ("date_string" if source is LLAMA else "strftime_now")
    assert {LLAMA: "Today 26 Jul 2024", PLAIN_DATE: "2024-07-26", IN_A_MACRO: "26 JULY 2024"}.get(source, "") in shown


@pytest.mark.parametrize("source", [LLAMA, PLAIN_DATE, IN_A_MACRO, AT_NIGHT, IN_A_LOOP])
def test_a_set_date_gives_the_prompt_that_transformers_gave_on_that_day(
    source: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Day(datetime):
        @classmethod
        def now(cls, tz: object = None) -> datetime:  # pyright: ignore
            return datetime(2019, 5, 17, 20, 0)

    tokenizer = with_chat(source)
    ours = read(tokenizer, variables={"strftime_now": "2019-05-17 20:00"}, answer="{answer}")
    monkeypatch.setattr(chat_template_utils, "datetime", Day)
    messages = [{"role": "user", "content": OTHER.question}]
    theirs = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    assert ours == f"{theirs}{OTHER.answer}"


def test_a_clock_that_is_not_asked_needs_no_date() -> None:
    assert "20" not in read(with_chat(UNUSED))
    assert "Today 1 May" in read(with_chat(LLAMA), variables={"date_string": "1 May"})


def test_a_date_that_cannot_be_set_is_refused_with_a_sentence() -> None:
    for source, date, words in (
        (COMPUTED, "2024-07-26", "computed"), (PLAIN_DATE, "yesterday", "is no date"),
        (LLAMA, "26 Jul 2024", 'strftime_now = "2024-07-26"'),
    ):  # fmt: skip
        with pytest.raises(AuditError, match=words) as caught:
            read(with_chat(source), variables={"strftime_now": date})
        assert caught.value.code == 2


def test_a_template_that_draws_at_random_is_refused() -> None:
    with pytest.raises(AuditError, match="at random"):
        read(with_chat("{{ ['a', 'b'] | random }}" + CHAT))


def test_a_date_is_put_in_only_where_it_is_needed() -> None:
    template = Template(chat=True)
    assert with_date(with_chat(CHAT), template, "Who?") == template
    assert with_date(with_chat(LLAMA), template, "Who?").variables == {"date_string": "26 Jul 2024"}
    assert with_date(with_chat(PLAIN_DATE), template, "Who?").variables == {"strftime_now": "2024-07-26"}


# ---- variables -----------------------------------------------------------------------------------------------------
THINKING = CHAT + "{% if enable_thinking is defined and not enable_thinking %}old {% endif %}{{ effort }}"


def test_variables_reach_the_template_with_their_type_and_are_hashed() -> None:
    tokenizer = with_chat(THINKING)
    assert "old" in read(tokenizer, variables={"enable_thinking": False}) and "old" not in read(tokenizer)
    assert "True" in read(tokenizer, variables={"effort": True})
    assert "1.5" in read(tokenizer, variables={"effort": 1.5})
    hashes = {
        rows_of(tokenizer, OTHER, template=Template(chat=True, variables={"effort": value})).hash
        for value in (1, True, "1", 1.0)
    }
    assert len(hashes) == 4
    assert len({Template(variables={"x": value}).content_hash() for value in (1, True, "1", 1.0)}) == 4
    assert len({hash(Template(variables={"x": value})) for value in (1, True, "1", 1.0)}) == 4


@pytest.mark.parametrize("name", ["enabel_thinking", "tokenize", "messages", "add_generation_prompt", "chat_template"])
def test_a_variable_that_the_template_does_not_read_is_named_with_those_it_reads(name: str) -> None:
    with pytest.raises(AuditError, match=f"{name}: not read .* it reads .*effort, enable_thinking") as caught:
        read(with_chat(THINKING), variables={name: True})
    assert caught.value.code == 2


def test_what_only_a_chat_template_reads_is_an_error_without_one() -> None:
    for stated in ({"variables": {"x": 1}}, {"chat_template": "rag"}):
        with pytest.raises(AuditError, match=f"{next(iter(stated))} without a chat template"):
            rows_of(KINDS["word_level"](), OTHER, template=Template(**stated))  # pyright: ignore


def test_a_case_file_says_what_is_wrong_with_its_template(tmp_path: Path) -> None:
    roles = 'name = "x"\n[roles.base]\npath = "b"\n[roles.suspect]\npath = "s"\n[data]\nforget = "f"\nretain = "r"\n'
    path = tmp_path / "case.toml"
    for text, words in (
        ("[template]\nchat = true\n[template.variables]\nday = 2024-07-26\n", "`day`: must be a text"),
        ('[template]\nsystem = "You are."\n', "`system`: only a chat template reads it"),
        ("[template.variables]\nday = 1\n", "`variables`: only a chat template reads it"),
        ('[template]\nseam = "both"\n', "`seam`"),
        ('[template]\nseem = "apart"\n', "did you mean `seam`"),
    ):
        path.write_text(roles + text)
        with pytest.raises(AuditError) as caught:
            load_case(path)
        assert words in caught.value.what and caught.value.what.count("\n") == 1, caught.value.what
    path.write_text(roles + "[template]\nchat = true\n[template.variables]\nenable_thinking = false\nn = 2\nd = 1.5\n")
    template = load_case(path).template
    assert dict(template.variables) == {"enable_thinking": False, "n": 2, "d": 1.5}
    assert template.variables["enable_thinking"] is False


# ---- which template, and what it does ------------------------------------------------------------------------------
def test_one_of_several_chat_templates_is_chosen_by_its_name() -> None:
    several = with_chat(rag="rag " + CHAT, tool_use="tool " + CHAT)
    assert read(several, chat_template="rag").startswith("rag")
    for name in ("", "other"):
        with pytest.raises(AuditError, match="'rag', 'tool_use'.*(names none|asks for 'other')") as caught:
            read(several, chat_template=name)
        assert caught.value.code == 2 and "chat_template = " in caught.value.do
    with_default = with_chat(default="first " + CHAT, rag="rag " + CHAT)
    assert read(with_default).startswith("first") and read(with_default, chat_template="rag").startswith("rag")
    with pytest.raises(AuditError, match="asks for 'rag'"):
        read(with_chat(CHAT), chat_template="rag")


DROPS = {
    "ignored": "{{ bos_token }}<user>\n<model>", "cut": CHAT.replace("m.content", "m.content[:8]"),
    "last word gone": CHAT.replace("m.content", "m.content.split(' it')[0]"),
    "system alone": CHAT.replace("for m in messages", "for m in messages if m.role == 'system'"),
}  # fmt: skip


@pytest.mark.parametrize("how", DROPS)
def test_a_template_that_drops_the_question_is_refused_and_the_item_named(how: str) -> None:
    with pytest.raises(AuditError, match="item 'it': its question is not whole") as caught:
        read(with_chat(DROPS[how]), system="a red cat")
    assert caught.value.code == 2


@pytest.mark.parametrize("filters", ["| trim", "| tojson", "| upper", "| e", "| replace(' ', '  ')"])
def test_a_question_that_is_written_otherwise_is_still_asked(filters: str) -> None:
    odd = OTHER.model_copy(update={"question": ' What is "it" & what\nis <it>? '})
    tokenizer = with_chat(CHAT.replace("m.content", f"m.content {filters}"))
    rows_of(tokenizer, odd, template=Template(chat=True))


BROKEN = {
    "syntax": "{% for m in %}", "unknown filter": "{{ messages | zzz }}", "own refusal": "{{ raise_exception('no') }}",
    "undefined": "{{ messages[0].a.b }}", "zero": "{{ 1 / 0 }}", "type": "{{ 'a' + 1 }}",
    "unsafe": "{{ messages.__class__.__mro__[1].x() }}", "deep": "{% macro f(n) %}{{ f(n) }}{% endmacro %}{{ f(1) }}",
}  # fmt: skip


@pytest.mark.parametrize("how", BROKEN)
def test_whatever_a_chat_template_raises_ends_as_a_sentence(how: str) -> None:
    with pytest.raises(AuditError, match="chat template (refuses|cannot be read)") as caught:
        read(with_chat(BROKEN[how]))
    assert caught.value.code == 2 and caught.value.__cause__ is not None


def test_marks_and_loop_controls_of_transformers_are_read() -> None:
    source = "{% for m in messages %}{% generation %}{{ m.content ~ x }}{% endgeneration %}{% break %}{% endfor %}"
    assert syntax_of(source).reads == {"x"}


def test_many_prompts_are_worded_fast() -> None:
    tokenizer = with_chat(PLAIN_DATE)
    items = [OTHER.model_copy(update={"id": str(n)}) for n in range(300)]
    begin = time.process_time()
    rows_of(tokenizer, *items, template=Template(chat=True, variables={"strftime_now": "2020-01-01"}))
    assert time.process_time() - begin < 3


SWITCH = "{% if think is defined and think is false %}quick {% endif %}{% if think is true %}slow {% endif %}" + CHAT


@pytest.mark.parametrize("value", ["false", "False", "true", 0, 1])
def test_a_switch_that_is_written_as_text_and_switches_nothing_is_refused(value: str | int) -> None:
    meant = str(value).casefold() in ("true", "1")
    with pytest.raises(AuditError, match="changes nothing in the prompt") as caught:
        read(with_chat(SWITCH), variables={"think": value})
    assert f"`think = {str(meant).lower()}`, without quotes" in caught.value.do
    assert ("slow" if meant else "quick") in read(with_chat(SWITCH), variables={"think": meant})
    shown = "{% if think == 'false' or think == 0 %}quick {% endif %}" + CHAT
    assert not meant or "quick" not in read(with_chat("{{ think }} " + CHAT), variables={"think": value})
    assert meant or "quick" in read(with_chat(shown), variables={"think": str(value).lower() if value else value})
