"""Views of a report: complete, honest in their wording, harmless whatever it holds, the same bytes each time."""

import json
import os
import re
import subprocess
import sys
from html import escape, unescape
from html.parser import HTMLParser
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from audit.render import (
    evidence_sentence,
    html,
    markdown,
    meaning,
    part,
    position,
    report_sections,
    sentence,
    summary,
    table,
)
from audit.render.drawings.scale import on_effect_scale
from audit.render.drawings.svg import panels
from audit.render.wording.findings import BANNED, verdict_sentence
from audit.render.wording.quantities import judged_shown, silence_worth
from audit.schema import Control, Curve, Interval, Missing, Overall, Report, Status
from audit.wording import number, visible
from tests.golden import HOSTILE, VARIANTS, Variant, effect, judged, null, profile, report

EXPECTED = Path(__file__).parents[1] / "expected"
OWN: tuple[Variant, ...] = ("suppressed", "calibrated", "consistent", "inconclusive", "invalid", "broken")
VOID = {"meta", "link", "img", "br", "hr", "input", "circle", "rect", "path", "polygon", "line"}


def terminal(reports: list[Report], width: int = 120) -> str:
    """What a pipe would get: no colour, no control codes."""
    console = Console(width=width, record=True, file=open(os.devnull, "w"), color_system=None)  # noqa: SIM115
    console.print(table(reports))
    console.print(summary(reports[0]))
    return console.export_text()


def views(variant: Variant) -> dict[str, str]:
    found = report(variant)
    return {"html": html(found), "markdown": markdown(found), "terminal": terminal([found])}


class Page(HTMLParser):
    """The structure of a page: tags in order with attributes, and whether they balance."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.text: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag, f"</{tag}> closes another tag"

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text.append(data)


# ---- golden text, determinism -----------------------------------------------------------------------------------
def test_markdown_of_a_golden_report_reads_as_agreed() -> None:
    assert markdown(report("suppressed")) == (EXPECTED / "suppressed.md").read_text(encoding="utf-8")


def test_terminal_table_of_the_golden_reports_reads_as_agreed() -> None:
    shown = terminal([report(v) for v in OWN])
    assert shown == (EXPECTED / "terminal.txt").read_text(encoding="utf-8")


def test_a_report_gives_the_same_bytes_after_a_round_trip_and_in_another_process() -> None:
    again = Report.model_validate_json(report("broken").canonical())
    code = (
        "import sys; from tests.golden import report; from audit.render.formats.html import html; "
        "sys.stdout.write(html(report('broken')))"
    )
    environment = {**os.environ, "PYTHONHASHSEED": "7", "PYTHONIOENCODING": "utf-8", "TZ": "Asia/Tokyo"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, check=True)
    assert html(report("broken")) == html(again) == done.stdout.decode()
    assert markdown(report("broken")) == markdown(again)


# ---- completeness -----------------------------------------------------------------------------------------------
BODY = [
    "question", "conclusion", "findings", "controls", "roles", "method", "not-run", "coverage", "reproduction",
    "glossary", "sign-off",
]  # fmt: skip
BEHIND = [
    "tests-gate", "tests-output", "tests-causal", "tests-decoding", "tests-recovery", "tests-context", "published",
    "control-table", "calibration", "items", "plan", "excerpts", "environment", "standards", "references",
]  # fmt: skip


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_view_shows_all_sections_in_their_order(variant: Variant) -> None:
    found = report(variant)
    shown = {
        "sections": [s.id for s in report_sections(found)],
        "html": re.findall(r'<section id="([a-z-]+)"', html(found)),
        "markdown": re.findall(r'^<a id="([a-z-]+)"></a>$', markdown(found), re.M),
    }
    assert shown == dict.fromkeys(shown, [*BODY, *BEHIND])
    parts = report_sections(found)
    assert [s.id for s in parts if s.appendix] == BEHIND
    titles = [s.title for s in parts]
    assert re.findall(r'<h[23] id="[^"]*"><span class="no">\w+</span> ([^<]*)</h[23]>', html(found)) == titles
    assert re.findall(r"^## \w+\. (.*)$", markdown(found), re.M) == titles
    assert all(s.blocks for s in parts), "a section without content says so"


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_appendix_stands_behind_the_body_and_is_closed_until_it_is_asked_for(variant: Variant) -> None:
    page, text = html(report(variant)), markdown(report(variant))
    body, behind = page.split('<div id="appendix"')
    assert re.findall(r'<section id="([a-z-]+)"', body) == BODY
    closed = re.findall(r'<details class="part"><summary><h3 id="h-([a-z-]+)">', behind)
    assert closed == BEHIND and 'class="part" open' not in page
    assert f'<section id="{BEHIND[0]}"' not in text and text.index("## Appendix") < text.index(f'id="{BEHIND[0]}"')
    assert re.findall(r"^- \[[A-Z]\. [^]]*\]\(#([a-z-]+)\)$", text, re.M) == BEHIND


@pytest.mark.parametrize("variant", OWN)
def test_every_finding_is_listed_with_its_numbers_also_the_silent_ones(variant: Variant) -> None:
    found = report(variant)
    for name, text in (("html", html(found)), ("markdown", markdown(found))):
        for e in found.evidence:
            m = e.measurement
            value = sentence(m.value.missing) if isinstance(m.value, Missing) else number(m.value)
            assert m.name in text and value in text, (name, m.name)
            assert f"{m.n.scored} / {m.n.errored} / {m.n.unscored}" in text, (name, m.name)


@pytest.mark.parametrize("variant", OWN)
def test_page_one_answers_ten_questions(variant: Variant) -> None:
    """What is left, outputs or inside, how sure, are errors known, who of how many, what was not tested, why undecided,
    against which model, how to repeat it, may it be called erased."""
    found = report(variant)
    page_one = html(found).split('<nav aria-label="Contents">')[0]
    assert f"</span> {found.verdict.word}</p>" in page_one and meaning(found) in unescape(page_one)
    told = dict(re.findall(r"<dt>([^<]*)</dt><dd>(.*?)</dd>", page_one))
    known = variant == "calibrated"
    assert ("times more probable" if known else "likelihood ratio is given") in told["How sure?"]
    assert re.match(
        r"False alarms in worlds of known truth: \d+ of \d+" if known else "No error rate is known", told["How sure"]
    )
    assert re.search(r"\d+ of \d+ people|\d+ people|[Nn]obody", told["Who was audited"])
    assert re.search(r"models? retrained|ancestor|no model that never knew", told["Compared with"])
    assert "elearning" in told["Not tested"] and "planned tests" in told["What ran?"]
    suspect = next(x.fingerprint[:12] for x in found.exhibits if x.role == "suspect")
    assert told["How to repeat it"].startswith(f"<code>{escape(found.reproduce)}</code>")
    assert suspect in told["How to repeat it"]
    assert told["May it be called erased?"].startswith("No")
    told_in_text = dict(re.findall(r"^- \*\*([^*]*)\*\*: (.*)$", markdown(found).split("## Appendix")[0], re.M))
    assert {"How sure", "Who was audited", "Compared with", "Not tested", "May it be called erased?"} <= {*told_in_text}


def test_skips_and_failures_are_shown_with_reason_and_consequence() -> None:
    for text in views("broken").values():
        assert "1 skipped, 1 failed" in text or ("needs an operation" in text and "size mismatch" in text)


# ---- wording ----------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("variant", OWN)
def test_no_view_uses_a_banned_word(variant: Variant) -> None:
    for name, text in views(variant).items():
        for word in BANNED:
            assert not re.search(rf"\b{word}\b", text, re.I), (name, word)


@pytest.mark.parametrize("variant", [variant for variant in OWN if variant != "calibrated"])
def test_in_case_evidence_prints_no_ratio_and_says_so(variant: Variant) -> None:
    assert "no likelihood ratio is given" in verdict_sentence(report(variant))
    assert not re.search(r"\bLR\b|times more probable", html(report(variant)))


def test_a_calibrated_report_shows_ratio_words_counted_mistakes_and_which_calibration_judged_in_every_view() -> None:
    for name, text in views("calibrated").items():
        for words in ("moderate support", "0 of 60 worlds", "1 of 60 worlds"):
            assert words in re.sub(r"\s+", " ", text), (name, words)
        if name != "terminal":
            assert "Which calibration judged which test" in text and "residua calibrate" in text and "stale" in text
    shown = re.sub(r"\s+", " ", views("calibrated")["terminal"])
    assert "likelihood ratio 52 (14 to ≥ 61), moderate support; false alarms 0/60 worlds, missed fakes 1/60" in shown


@given(st.floats(-1e9, 1e9, allow_nan=False))
def test_a_number_has_two_significant_figures_and_its_size(value: float) -> None:
    raised = str.maketrans("⁻⁰¹²³⁴⁵⁶⁷⁸⁹", "-0123456789")
    shown = re.sub("×10(.*)", lambda m: "e" + m[1].translate(raised), number(value)).replace("−", "-")
    assert abs(float(shown) - value) <= 0.0501 * abs(value)
    digits = re.sub(r"e.*|[-.]", "", shown).lstrip("0")
    assert len(digits.rstrip("0") if "." not in shown else digits) <= 2


@given(
    value=st.floats(-3, 3), half=st.floats(0, 2), found=st.booleans(),
    status=st.sampled_from(["trace", "silent", "undecided", "blind", "hint", "within_floor"]),
    gone=st.sets(st.sampled_from(["value", "ci95", "positive_control", "null", "p", "floor"])),
)  # fmt: skip
def test_a_negative_always_stands_beside_what_its_silence_is_worth(
    value: float, half: float, found: bool, status: Status, gone: set[str]
) -> None:
    control = Control(value=1.0, ci95=Missing(missing="not needed"), found=found)
    m = effect("p", "n", "causal", value, half, positive_control=control)
    m = m.model_copy(update={key: Missing(missing="a reason") for key in gone})
    e = judged(m, status, "so it is")
    said = evidence_sentence(e)
    assert "nan" not in said and "None" not in said
    if e.outcome != "trace found":
        assert "Detection limit" in said or "Blind here" in said


@pytest.mark.parametrize("gone", ["value", "ci95", "positive_control", "null", "p", "floor", "items"])
def test_a_report_whose_every_number_misses_something_is_still_shown(gone: str) -> None:
    reason = "The scale broke"
    short = [e.measurement.model_copy(update={gone: Missing(missing=reason)}) for e in report().evidence]
    found = report().model_copy(
        update={"evidence": tuple(judged(m, "undecided", "something is missing") for m in short)}
    )
    assert gone == "items" or (reason in html(found) and reason in markdown(found))
    assert terminal([found])


@given(zero=st.floats(-2, 2), span=st.floats(0.1, 3), share=st.floats(-1, 2))
def test_a_raw_statistic_is_placed_between_its_own_null_and_base(zero: float, span: float, share: float) -> None:
    known = Control(value=zero + span, ci95=Missing(missing="not needed"), found=True)
    spread = null(zero, 0.2 * span)
    m = effect(
        "p", "n", "output", zero + share * span, 0.1 * span, unit="nats", scale="difference", null=spread, floor=zero
    )
    place = position(m.model_copy(update={"positive_control": known}))
    assert not isinstance(place, Missing)
    assert place.value == pytest.approx(share, abs=1e-9)
    assert (place.lo, place.hi) == (pytest.approx(share - 0.1, abs=1e-9), pytest.approx(share + 0.1, abs=1e-9))
    assert place.null_hi == pytest.approx(0.19, abs=1e-9) and place.floor == pytest.approx(0, abs=1e-9)


def test_a_scale_is_read_from_its_field_and_never_from_the_words_of_the_unit() -> None:
    m = effect("p", "n", "output", 0.3, 0.1, unit="effect of a dose in nats", scale="difference")
    assert not on_effect_scale(m) and "nats" in position(m.model_copy(update={"null": Missing(missing="none")})).missing
    assert on_effect_scale(m.model_copy(update={"unit": "nats", "scale": "effect"}))
    x = (0.0, 1.0)
    curves = [Curve(axis="layer", unit=unit, scale=scale, role=role, x=x, y=x) for unit, scale, role in (
        ("share of nothing", "other", "base"), ("bits", "probability", "suspect"), ("parts", "ratio", "reference"),
    )]  # fmt: skip
    assert [[c.unit for c in panel] for panel in panels(curves)] == [["share of nothing"], ["bits", "parts"]]


@pytest.mark.parametrize(("status", "kind", "mode", "word"), [
    ("gate_passed", "gate", "controlled", "gate passed"), ("gate_failed", "gate", "controlled", "gate failed"),
    ("gate_unmeasured", "gate", "controlled", "gate"), ("listed", "context", "controlled", "context"),
    ("listed", "recovery", "controlled", "context"), ("listed", "causal", "paper", "as published"),
    ("trace", "recovery", "controlled", "▲ trace found"), ("silent", "causal", "controlled", "● no trace found"),
    ("hint", "causal", "controlled", "◆ inconclusive"), ("below", "causal", "controlled", "▼ below never trained"),
])  # fmt: skip
def test_what_a_finding_is_called_follows_from_its_status_whatever_its_reason_says(
    status: Status, kind: str, mode: str, word: str
) -> None:
    e = judged(effect("p", "n", kind, 0.3, 0.1, mode=mode), status, "gate passed: or not",
               "below" if status == "below" else "none")  # fmt: skip
    assert part(e) == word


# ---- the page ---------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("variant", VARIANTS)
def test_the_page_balances_and_is_accessible(variant: Variant) -> None:
    page = Page(html(report(variant)))
    assert page.open == []
    levels = [int(tag[1]) for tag, _ in page.tags if re.fullmatch(r"h[1-6]", tag)]
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(after <= before + 1 for before, after in zip(levels, levels[1:], strict=False))
    assert all(attrs.get("scope") in ("col", "row", "rowgroup") for tag, attrs in page.tags if tag == "th")
    assert all(attrs.get("role") == "img" and attrs.get("aria-label") for tag, attrs in page.tags if tag == "svg")
    names = [tag for tag, _ in page.tags]
    assert names.count("table") == names.count("caption") == names.count("thead")
    ids = [attrs["id"] for _, attrs in page.tags if "id" in attrs]
    assert len(ids) == len(set(ids))
    links = [attrs["href"] or "" for tag, attrs in page.tags if tag == "a"]
    assert links and all(link.startswith("#") and link[1:] in ids for link in links)


def test_every_figure_has_its_data_as_a_table() -> None:
    figures = re.findall(r"<figure>.*?</figure>", html(report()), re.S)
    assert len(figures) == 7, "all judged tests, a figure a family of findings that can be placed, and one profile"
    assert all("<details><summary>" in f and "<table>" in f and "<svg" in f for f in figures)


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_page_asks_nothing_of_the_network_and_runs_nothing(variant: Variant) -> None:
    text = html(report(variant))
    page = Page(text)
    assert "default-src 'none'; style-src 'unsafe-inline'; img-src data:" in text
    assert not {"link", "iframe", "object", "embed", "base", "form", "img"} & {tag for tag, _ in page.tags}
    scripts = [attrs for tag, attrs in page.tags if tag == "script"]
    assert all(attrs == {"type": "application/json", "id": "report-json"} for attrs in scripts)
    attributes = {key for _, attrs in page.tags for key in attrs}
    assert not [key for key in attributes if key.startswith("on") or key in ("src", "srcset", "action")]
    style = text.split("<style>")[1].split("</style>")[0]
    assert "url(" not in style and "@import" not in style


def test_a_large_report_stays_below_one_megabyte() -> None:
    x = tuple(float(i) for i in range(80))
    wide = tuple(
        Curve(axis="layer", unit="item probability", scale="probability", role=role, x=x, y=x, lo=x, hi=x)
        for role in ("base", "suspect", "reference", "floor", "gate")
    )
    plain, drawn = (effect("probe", f"number {i}", "causal", 0.5, 0.1, curves=c) for i, c in enumerate(((), wide)))
    many = tuple(judged(drawn if i % 4 == 0 else plain, "trace", "x") for i in range(40))
    assert len(html(report().model_copy(update={"evidence": many})).encode()) < 1_000_000


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_small_page_carries_its_document_and_a_large_one_does_not(variant: Variant) -> None:
    found = report(variant)
    carried = re.findall(r'<script type="application/json" id="report-json">(.*?)</script>', html(found), re.S)
    size = len(json.dumps(found.model_dump(mode="json"), sort_keys=True, separators=(",", ":")))
    assert (size > 300_000) == (variant == "hostile") == (not carried)
    if carried:
        assert Report.model_validate_json(carried[0]) == found


# ---- hostile text -----------------------------------------------------------------------------------------------
def test_hostile_text_is_shown_and_never_becomes_markup() -> None:
    shown = views("hostile")
    page = Page(shown["html"])
    assert "img" not in {tag for tag, _ in page.tags}
    assert "&lt;/script&gt;&lt;img src=x onerror=alert(1)&gt;" in shown["html"]
    assert "{{7*7}}" in "".join(page.text)
    for name, text in shown.items():
        assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u200b-\u200f\u202a-\u202e\u2060-\u2069\ufeff]", text), name
        assert "‹U+202E›" in text or name == "terminal"
    assert "more characters" in shown["html"]


def test_hostile_text_cannot_break_out_of_markdown() -> None:
    text = markdown(report("hostile"))
    bare = re.sub(r'<a id="[a-z-]+"></a>', "", text)
    assert not re.search(r"<(?![\s\d=])", bare)
    assert "@all" not in text
    for block in re.findall(r"(?:^\|.*\|$\n)+", text, re.M):
        cells = {len(re.findall(r"(?<!\\)\|", line)) for line in block.splitlines()}
        assert len(cells) == 1, block[:200]


@given(st.text(max_size=60))
def test_text_from_elsewhere_is_capped_and_holds_nothing_hidden(text: str) -> None:
    shown = visible(text, 40)
    assert visible(shown) == shown
    assert shown.isprintable() or not shown or re.search(r"\s", shown)
    assert ("more characters" in shown) == (len(text) > 40) or "more characters" in text


def test_the_golden_hostile_string_is_what_it_says() -> None:
    assert all(c in HOSTILE for c in ("\x1b", "\u202e", "<img", "</script>", "|", "`", "{{"))


def test_a_silence_shows_the_overall_effect_that_it_rests_on_and_a_trace_the_largest_over_layers() -> None:
    overall = Overall(value=0.01, ci95=Interval(lo=-0.05, hi=0.08), floor=0.02)
    layered = effect("reverse_patch", "all", "causal", 0.02, 0.2, curves=profile((0.0, 0.02)), overall=overall)
    lone = effect("reverse_patch", "all", "causal", 0.02, 0.2)
    assert judged_shown(judged(layered, "silent", "b")) == ("0.010", "−0.050 to 0.080")
    assert judged_shown(judged(layered, "trace", "b", "above")) == ("0.020", "−0.18 to 0.22")
    assert judged_shown(judged(lone, "silent", "b")) == ("0.020", "−0.18 to 0.22")
    assert "Upper bound of the overall effect: 0.080" in silence_worth(layered)
    assert "Upper bound of the effect: 0.22" in silence_worth(lone)


def test_report_says_how_the_data_were_read_and_which_tests_had_too_few_groups() -> None:
    plain = report("suppressed")
    first, *rest = plain.plan.tests
    tests = (first.model_copy(update={"undecidable": "with 1 audited forget group p cannot be below 0.5"}), *rest)
    plan = plain.plan.model_copy(update={"tests": tests, "notes": ("forget: `query` is read as the question",)})
    page = markdown(plain.model_copy(update={"plan": plan}))
    assert "- Forget: `query` is read as the question." in page.replace("\\`", "`")
    assert "yes, but it cannot decide: with 1 audited forget group p cannot be below 0.5" in page
    assert "Of the data, before anything was measured" not in markdown(plain)
