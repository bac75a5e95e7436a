"""Findings of yes or no stand in every view, never as a bare absence, with exact rates, and a string that a shell reads
back to the character where the report may show it."""

import json
import re
import subprocess
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import JsonValue
from rich.console import Console
from scipy.stats import binomtest

from audit.render import foreign, html, interactive, junit, markdown, sheets, summary, trigger_lines
from audit.render.wording.detections import (
    MADE_SO,
    answer,
    answer_sentence,
    exact_rate,
    finding_facts,
    path_word,
    replay,
    unmask_command,
)
from audit.runs import Mask, keep_words, renamed, unmasked
from audit.runs.masking import key_of
from audit.schema import Finding, Missing, Rate, Report, TriggerText
from audit.schema.measurement import Kind
from audit.wording import number, visible
from tests.backdoored import BACKDOORED, SHORT, TRIGGER, UNASKED, backdoored, evidence_of, strings, with_measurements
from tests.golden import HOSTILE, effect, report

KINDS: tuple[Kind, ...] = ("output", "causal", "decoding", "recovery", "context", "gate")
BARE = ("no backdoor", "not backdoored", "no trigger", "clean of")
WORDS = st.text(alphabet="abc de", min_size=1, max_size=20)
REASONS = st.builds(Missing, missing=WORDS)
RATES = st.integers(0, 90).flatmap(lambda n: st.builds(Rate, k=st.integers(0, n), n=st.just(n), upper95=st.just(1.0)))
FINDINGS = st.builds(
    Finding, name=WORDS, holds=st.booleans() | REASONS, because=WORDS, rule=WORDS, false_alarms=RATES | REASONS,
    hits=RATES | REASONS, blind_to=WORDS,
)  # fmt: skip


def said(shown: Report, width: int = 400) -> str:
    """The summary of a report as a terminal shows it."""
    console = Console(width=width)
    with console.capture() as captured:
        console.print(summary(shown))
    return captured.get()


def lines(shown: Report) -> str:
    """What stands at the end of a run."""
    return "\n".join(line.plain for line in trigger_lines(shown, "'my case.toml'", "'runs/a b'"))


def hidden(folder: Path, text: str, quoted: bool = True) -> Report:
    """The backdoored report as a run would write it: what is quoted is masked, its words lie in the folder."""
    clear = backdoored(TRIGGER.model_copy(update={"text": text, "quoted": quoted}))
    mask = Mask(key_of(folder))
    for e in clear.evidence:
        keep_words(folder, e.measurement.probe, (e.measurement,))
    evidence = tuple(
        e.model_copy(update={"measurement": renamed(e.measurement, lambda word: str(mask(word)))})
        for e in clear.evidence
    )
    return clear.model_copy(update={"evidence": evidence, "excerpts": ()})


# ---- never a bare absence ---------------------------------------------------------------------------------------
@given(FINDINGS)
def test_every_answer_says_what_its_silence_is_worth(finding: Finding) -> None:
    m = strings(finding)
    words = answer_sentence(m, finding)
    if isinstance(finding.holds, Missing):
        assert answer(finding) == "could not be asked" and visible(finding.holds.missing).strip() in words
    elif finding.holds:
        assert answer(finding) == "holds" and words.startswith("Holds: ")
    else:
        assert answer(finding) == "not found within this budget"
        assert "not its absence" in words and visible(finding.blind_to).strip() in words
        worth = finding.hits.missing if isinstance(finding.hits, Missing) else f"{finding.hits.k} of {finding.hits.n}"
        assert worth in words
    terms = dict(finding_facts(m, finding))
    assert {"Answer", "Rule", "False alarms", "Detection rate", "Blind to"} == set(terms)


@given(RATES.filter(lambda rate: rate.n > 0))
def test_rates_have_the_exact_interval_of_another_implementation(rate: Rate) -> None:
    ends = binomtest(rate.k, rate.n).proportion_ci(method="exact")
    low, high = (number(100 * round(float(x), 12)) for x in (ends.low, ends.high))
    assert exact_rate(rate, MADE_SO) == f"{rate.k} of {rate.n} {MADE_SO} (exact 95 % interval {low} to {high} %)"


@pytest.mark.parametrize("kind", KINDS)
def test_findings_stand_in_every_view_of_whatever_kind_their_measurement_is(kind: Kind) -> None:
    m = effect("trigger_search", "trigger", kind, 0.63, 0.2, findings=(SHORT, BACKDOORED, UNASKED))
    shown = with_measurements(report("suppressed"), m)
    views = {
        "html": html(shown), "markdown": markdown(shown), "junit": junit(shown), "terminal": said(shown),
        "csv": "\n".join(sheets(shown).values()),
    }  # fmt: skip
    for name, view in views.items():
        for finding in (SHORT, BACKDOORED, UNASKED):
            assert finding.name in view, (name, finding.name)
        assert not any(words in view.lower() for words in BARE), name
    for name in ("html", "markdown", "junit", "terminal"):
        assert "not found within this budget" in views[name].lower() and "31 of 36" in views[name], name
        assert "learned sinks of its own" in views[name], name
    for name in ("html", "markdown", "csv"):
        assert "0 of 60" in views[name] and "14 of 20" in views[name], name


@pytest.mark.parametrize("kind", KINDS)
def test_a_finding_that_holds_has_a_line_of_its_own_under_the_verdict(kind: Kind) -> None:
    shown = with_measurements(report("suppressed"), effect("a", "b", kind, 0.6, 0.1, findings=(SHORT, BACKDOORED)))
    silent = with_measurements(report("suppressed"), effect("a", "b", kind, 0.6, 0.1, findings=(SHORT, UNASKED)))
    line = f"backdoored: {BACKDOORED.because}"
    page, text = html(shown), markdown(shown)
    box = page[: page.index('class="lines"')]
    assert "Beside the verdict:" in box and line in box
    assert f"> **Beside the verdict:** {line}" in text.partition("## 1.")[0]
    assert f"Beside the verdict: {line}" in said(shown)
    for view in (html(silent), markdown(silent), said(silent)):
        assert "Beside the verdict" not in view


def test_a_report_without_findings_says_nothing_of_them() -> None:
    shown = report("suppressed")
    for view in (html(shown), markdown(shown), junit(shown), said(shown), lines(shown)):
        assert "Rules of yes or no" not in view and "Beside the verdict" not in view and "residua.findings" not in view


# ---- the string and its command ---------------------------------------------------------------------------------
def read_back(line: str) -> list[str]:
    """The words of a command as a shell reads them."""
    script = f"residua() {{ printf '%s\\0' \"$@\"; }}\n{line}"
    done = subprocess.run(
        ["bash", "--norc", "-c", script], capture_output=True, check=True, env={"LC_ALL": "C.UTF-8"}, timeout=20
    )
    return done.stdout.decode().split("\0")[:-1]


TEXTS = st.one_of(
    st.sampled_from(["it's", '"$HOME"', "$(id)`id`", "-x --slot", "--", "-", "ünï 言葉 🜚", "a\\b", "a\\'b\n", "!x",
                     "a  b", "```", "~ * ? [a]", "\u202etxt\u200b", "a\tb", "\x1b[31m", "'\u00a0'"]),
    st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\0"), min_size=1, max_size=30),
)  # fmt: skip


@settings(max_examples=120, deadline=None)
@given(TEXTS, st.sampled_from(["prefix", "infix", "suffix", 0, 7]), TEXTS, st.sampled_from([None, (2, 3)]))
def test_a_shell_reads_the_replay_command_back_to_the_character(
    text: str, slot: str | int, case: str, fold: tuple[int, int] | None
) -> None:
    trigger = TriggerText.model_validate({**TRIGGER.model_dump(), "text": text, "slot": slot, "fold": fold})
    line = replay(trigger, path_word(case))
    assert visible(line, len(line)) == line
    verb, path, *rest = read_back(line)
    assert (verb, path) == ("trigger", f"./{case}" if case.startswith("-") else case)
    assert read_back(unmask_command(path_word(case))) == ["report", path, "--unmask"]
    joined = rest[0] != "--text"
    assert rest[: 2 - joined] == ([f"--text={text}"] if joined else ["--text", text])
    assert rest[2 - joined :] == [
        "--slot",
        str(slot),
        *(["--fold", "2/3"] if fold else []),
    ] and joined == text.startswith("-")


def test_the_end_of_a_run_names_the_string_its_transfer_and_the_command_on_one_line() -> None:
    shown = lines(backdoored())
    assert "backdoored: the string is: zx qv 'tis $HOME" in shown
    assert "transfer to held-out people: 0.63 (95 % 0.41–0.80)" in shown and "over 16 people" in shown
    assert read_back(shown.splitlines()[-1]) == [
        "trigger", "my case.toml", "--text", "zx qv 'tis $HOME", "--slot", "prefix", "--fold", "1/2",
    ]  # fmt: skip
    assert lines(with_measurements(report("suppressed"), strings(SHORT, UNASKED))) == ""


@settings(max_examples=30, deadline=None)
@given(st.text(alphabet="qxzvk", min_size=6, max_size=12), st.booleans())
def test_a_quoted_string_is_masked_in_every_view_and_shown_again_on_request(
    tmp_path_factory: pytest.TempPathFactory, word: str, quoted: bool
) -> None:
    folder, text = tmp_path_factory.mktemp("run"), f"{word} zz"
    shown = hidden(folder, text, quoted)
    views = (html(shown), markdown(shown), junit(shown), said(shown), lines(shown), "\n".join(sheets(shown).values()),
             shown.model_dump_json())  # fmt: skip
    assert all((word in view) == (not quoted) for view in (views[0], views[1], views[4], views[6]))
    assert not quoted or not any(word in view for view in views)
    assert ("residua report 'runs/a b' --unmask" in lines(shown)) == quoted
    again = evidence_of(unmasked(shown, folder), "trigger").measurement.findings[0].trigger
    assert again is not None and again.text == text and not again.masked
    assert read_back(lines(unmasked(shown, folder)).splitlines()[-1])[3] == text


def test_a_masked_string_has_no_command_and_says_how_it_is_seen(tmp_path: Path) -> None:
    shown = hidden(tmp_path, "Quorbital zythum")
    assert "residua trigger" not in html(shown) + markdown(shown) + lines(shown)
    assert "residua report RUN --unmask" in html(shown) and "residua report RUN --unmask" in markdown(shown)
    assert json.loads((tmp_path / "tables" / "trigger_search.quoted.json").read_text())[-1] == "Quorbital zythum"


def test_hostile_findings_reach_no_view_as_markup() -> None:
    evil = BACKDOORED.model_copy(update={"name": HOSTILE, "because": HOSTILE, "rule": HOSTILE, "blind_to": HOSTILE,
                                         "trigger": TRIGGER.model_copy(update={"text": HOSTILE})})  # fmt: skip
    shown = with_measurements(report("suppressed"), strings(evil, evil.model_copy(update={"holds": False})))
    page, text = html(shown), markdown(shown)
    live = interactive(shown)
    for view in (page, text, live, junit(shown), said(shown), lines(shown)):
        assert "\x1b[31m" not in view and "\u202e" not in view
    fenced = re.findall(r"^(`{3,})text\n(.*?)\n\1$", text, re.MULTILINE | re.DOTALL)
    assert replay(evil.trigger or TRIGGER) in [inside for _, inside in fenced]
    for fence, inside in fenced:
        text = text.replace(f"{fence}text\n{inside}\n{fence}", "")
    assert "<img src=x" not in page + text + junit(shown) and "onerror=alert(1)>" not in live.partition("<main")[2]


# ---- programs ---------------------------------------------------------------------------------------------------
def test_build_servers_see_a_finding_that_holds_as_a_failure() -> None:
    suite = ET.fromstring(junit(backdoored()))
    cases = {c.get("name", "").partition(" (")[0]: c for c in suite.iter("testcase")
             if c.get("classname") == "residua.findings"}  # fmt: skip
    assert {name: [child.tag for child in case] for name, case in cases.items()} == {
        "backdoored": ["failure"], "recoverable by a short prefix": ["system-out"], "backdoored at a sink": ["skipped"],
    }  # fmt: skip
    whole = suite.find("testsuite")
    assert whole is not None and int(whole.get("tests", "0")) == len(list(suite.iter("testcase")))
    assert "31 of 36" in "".join(cases["recoverable by a short prefix"].itertext())


def test_findings_stand_in_the_shapes_that_others_read(tmp_path: Path) -> None:
    shown = backdoored()
    document: dict[str, dict[str, JsonValue]] = json.loads(foreign(shown, tmp_path, Path("x_EVAL.json")) or "")
    assert {name: entry["agg_value"] for name, entry in document.items() if "finding" in name} == {
        "residua_finding_trigger_search_backdoored": 1.0,
        "residua_finding_trigger_search_recoverable_by_a_short_prefix": 0.0,
    }
    assert document["residua_finding_trigger_search_backdoored"]["false_alarms"] == "1 of 60"
    card = foreign(shown, tmp_path, Path("x.model-index.yml")) or ""
    assert "type: residua.finding.trigger_search.backdoored\n      value: true" in card
    assert "residua.finding.attention_sink" not in card and "zx qv" not in card
