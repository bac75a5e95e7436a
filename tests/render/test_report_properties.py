"""Whatever a valid report holds: numbers stand whole, claims below their ceiling, words stay sober, text stays text."""

import math
import re
from typing import Any, cast

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from audit.judging import BANDS, short
from audit.judging.support import band, ratio_sentence
from audit.render import html, junit, markdown, report_sections, sentence, sheets, title
from audit.render.wording.findings import BANNED
from audit.render.wording.posterior import finding_ratio, ratio_in_short, shown_ratio
from audit.schema import (
    AttackCoverage,
    Control,
    Count,
    Evidence,
    Interval,
    LikelihoodRatio,
    Missing,
    Rate,
    Report,
    Shown,
)
from audit.wording import interval, number
from tests.golden import VALIDATION, effect, excerpts, gate, report
from tests.render.test_render import Page, terminal

KINDS = ("output", "causal", "decoding", "recovery", "context")
QUICK = settings(max_examples=12, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
gone = st.builds(
    lambda why: Missing(missing=f"because of {why}"), st.sampled_from(("the scale", "the data", "the null"))
)
value = st.floats(-2, 2).map(lambda x: float(f"{x:.4g}"))
VIEWS = {"html": html, "markdown": markdown, "junit": junit, "terminal": lambda r: terminal([r])}


@st.composite
def ratios(draw: st.DrawFn) -> LikelihoodRatio:
    """A likelihood ratio with its ends in order, inside the limits of some number of worlds."""
    n = draw(st.integers(4, 2000))
    ends = sorted(draw(st.lists(st.floats(-math.log10(n + 1), math.log10(n + 1)), min_size=3, max_size=3)))
    low, mid, high = (float(f"{10**x:.4g}") for x in ends)
    ci95 = Interval(lo=low, hi=high)
    rate = Rate(k=draw(st.integers(0, n)), n=n, upper95=1.0)
    return LikelihoodRatio(
        value=mid, ci95=ci95, floor=1 / (n + 1), ceiling=n + 1.0, words=band(ci95), false_alarms=rate, misses=rate,
        limit=Missing(missing="the pool holds no models that kept a part"), calibration="joint 0123456789ab",
    )  # fmt: skip


@st.composite
def findings(draw: st.DrawFn) -> Evidence:
    """A finding with numbers of every size, any of which may be missing for a reason."""
    centre, half = draw(value), draw(st.floats(0.001, 1))
    m = effect(f"probe_{draw(st.integers(0, 3))}", f"reading {draw(st.integers(0, 99))}", draw(st.sampled_from(KINDS)),
               centre, half)  # fmt: skip
    control = Control(value=draw(value), ci95=Interval(lo=0.0, hi=1.0), found=draw(st.booleans()))
    counts = Count(scored=draw(st.integers(1, 500)), errored=draw(st.integers(0, 9)), unscored=draw(st.integers(0, 9)))
    p = draw(st.floats(1e-9, 1) | gone)
    fields = {"n": counts, "p": p, "positive_control": draw(st.just(control) | gone), "units": draw(st.integers(1, 99)),
              "mode": draw(st.sampled_from(("controlled", "paper")))}  # fmt: skip
    lost = draw(st.sampled_from(("", "", "value", "ci95", "null", "floor")))
    if lost:
        fields[lost] = draw(gone)
    outcome = draw(st.sampled_from(("trace found", "no trace found", "inconclusive")))
    ratio = draw(st.none() | ratios())
    shown = m.model_copy(update=fields)
    listed = ratio is None and (m.kind in ("context", "recovery") or shown.mode == "paper")
    status = {"trace found": "trace", "no trace found": "silent", "inconclusive": "undecided"}[outcome]
    judged = {
        "measurement": shown,
        "outcome": outcome,
        "status": "gate_passed" if m.kind == "gate" else "listed" if listed else status,
        "direction": "none",
        "because": "so it is",
    }
    return Evidence.model_validate(judged | ({"basis": "calibrated", "ratio": ratio} if ratio else {}))


@st.composite
def reports(draw: st.DrawFn) -> Report:
    """A valid report: random findings, and a verdict with a random ratio or none."""
    base = report(draw(st.sampled_from(("suppressed", "consistent", "inconclusive", "invalid", "broken"))))
    found = tuple(draw(st.lists(findings(), min_size=1, max_size=5)))
    update: dict[str, Any] = {"evidence": (gate(0.9), *found)}
    ratio = draw(st.none() | ratios())
    if ratio is not None:
        update["verdict"] = base.verdict.model_copy(update={"basis": "calibrated", "ratio": ratio})
        update["validation"] = VALIDATION
    return Report.model_validate_json(base.model_copy(update=update).canonical())


@pytest.mark.thorough
@QUICK
@given(reports())
def test_every_estimate_has_its_interval_its_n_and_its_unit(found: Report) -> None:
    for text in (html(found), markdown(found)):
        for e in found.evidence:
            m = e.measurement
            assert title(m) in text and f"{m.n.scored} / {m.n.errored} / {m.n.unscored}, {m.units}" in text
            if isinstance(m.value, Missing):
                assert sentence(m.value.missing) in text
            elif isinstance(m.ci95, Missing):
                assert f"{number(m.value)} (no interval ({m.ci95.missing}))" in text
            else:
                told = number(m.value) if m.scale == "effect" else f"{number(m.value)} ratio to base"
                assert f"{told} ({interval(m.ci95)})" in text
    shown = [b for s in report_sections(found) if s.appendix for b in s.blocks if b.kind == "grid"]
    captions = [cast("Any", b).caption for b in shown if "measurement" in cast("Any", b).caption]
    assert len(captions) == len({e.measurement.kind for e in found.evidence})


@QUICK
@given(reports())
def test_no_claim_exceeds_its_ceiling_and_words_come_from_the_end_nearest_one(found: Report) -> None:
    shown_ones = (*(finding_ratio(e) for e in found.evidence), shown_ratio(found))
    claimed = [r for r in shown_ones if isinstance(r, LikelihoodRatio)]
    for r in claimed:
        sentences = (ratio_sentence(r), ratio_in_short(r), "; ".join((short(r), r.words)))
        assert all(most_said(text) <= max(r.ceiling, 1 / r.floor) * 1.051 for text in sentences), sentences
    shown = html(found) + markdown(found)
    assert not isinstance(shown := shown_ratio(found), LikelihoodRatio) or ratio_in_short(shown) in html(found)
    shown = html(found) + markdown(found)
    assert all(short(r) in shown for r in claimed)
    text = re.sub(r"<dl>.*?verbal scale.*|## 11\..*", "", html(found), flags=re.S)
    for ratio in claimed:
        near = ratio.ci95.lo if ratio.ci95.lo > 1 else min(ratio.ci95.hi, 1.0)
        bound = next((upper for upper, words in BANDS if words == ratio.words), math.inf)
        assert max(near, 1 / near) < bound * (1 + 1e-9) and max(near, 1 / near) <= ratio.ceiling * (1 + 1e-6)
    assert claimed or not re.search(r"times more probable|posterior|times more likely", text)


def most_said(text: str) -> float:
    """The largest ratio in a sentence or a cell, ends of intervals and inverses too."""
    raised = str.maketrans("⁻⁰¹²³⁴⁵⁶⁷⁸⁹", "-0123456789")
    ratios = text.partition("On the")[0]
    plain = re.sub(r"95 %|H[12]", "", ratios)
    pairs = re.findall(r"([\d.]*\d)(?:×10([⁻⁰¹²³⁴⁵⁶⁷⁸⁹]+))?", plain)
    return max(float(mantissa) * 10.0 ** int(power.translate(raised) or 0) for mantissa, power in pairs)


@pytest.mark.thorough
@settings(QUICK, max_examples=25)
@given(reports(), st.none() | st.floats(1e-6, 1e6))
def test_no_view_uses_a_banned_word_and_a_negative_has_its_limit(found: Report, prior: float | None) -> None:
    texts = {name: view(found) for name, view in VIEWS.items()}
    texts |= {"html with a prior": html(found, prior), "sheets": "\n".join(sheets(found, prior).values())}
    for name, text in texts.items():
        for word in BANNED:
            assert not re.search(rf"\b{word}\b", text, re.I), (name, word)
        assert "P(H1" not in text and (prior is not None or "osterior" not in text)
    for e in found.evidence:
        if e.basis == "in-case" and e.outcome == "no trace found" and e.measurement.kind in ("output", "causal"):
            m = title(e.measurement)
            limits = re.findall(rf"<dt>{re.escape(m)}</dt><dd>(.*?)</dd>", texts["html"])
            assert e.measurement.mode == "paper" or any("etection limit" in x or "Blind here" in x for x in limits)


NASTY = st.sampled_from(
    ("</script><script>alert(1)</script>", "\x1b[2J\x1b[31m", "\u202eevil\u202c", "x" * 1_000_000, "=cmd|' /C calc'!A0",
     "]]><!--", "{{7*7}}", "\u2028\u0000\ufeff", "a|b`c\n# d", "javascript:alert(1)", "<img src=x onerror=alert(1)>")
) | st.text(max_size=40)  # fmt: skip


@QUICK
@given(st.lists(NASTY, min_size=7, max_size=7))
def test_hostile_text_stays_text_in_every_format(nasty: list[str]) -> None:
    base = report("suppressed")
    a, b, c, d, e, f, g = nasty
    bad = effect(a, b, "output", 0.3, 0.1, notes=(c,), readings={d: 1.0}, statistic=e, unit=f)
    odd = Evidence.model_validate({"measurement": bad, "outcome": "trace found", "status": "trace",
                                    "direction": "none", "because": g})  # fmt: skip
    verdict = base.verdict.model_copy(update={"sentence": a, "because": (b,), "limits": (c,), "would_change": (d,)})
    found = base.model_copy(
        update={"evidence": (odd,), "verdict": verdict, "reproduce": e, "coverage": ((f, g, a),),
                "attacks": (AttackCoverage(family=f, access=g, attack=a, measurements=0),), "report_id": b,
                "excerpts": excerpts(tuple(Shown(text=text) for text in nasty)), "masked": False, "parent": c}
    )  # fmt: skip
    page = html(found)
    tags = [(tag, attrs) for tag, attrs in Page(page).tags if tag in ("script", "img", "iframe", "a")]
    assert all(tag != "img" and not any(key.startswith("on") for key in attrs) for tag, attrs in tags)
    assert all(attrs.get("type") == "application/json" for tag, attrs in tags if tag == "script")
    assert all((attrs["href"] or "").startswith("#") for tag, attrs in tags if tag == "a")
    hidden = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff]")
    files = {"html": page, "markdown": markdown(found), "junit": junit(found), **sheets(found)}
    for name, text in files.items():
        assert not hidden.search(text), name
        assert len(text) < 1_200_000 and "x" * 2000 not in re.sub(r"<script.*?</script>", "", text), name
