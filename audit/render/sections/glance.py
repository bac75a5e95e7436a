"""The first screen for a reader: the two axes, who is known, how sure, who was audited, what was not tested.

Everything here is missing or empty in a report of an earlier version, and is then left out or said to be so.
"""

from typing import Final, NamedTuple

from markupsafe import Markup, escape

from audit.judging import count_words, replicates_of
from audit.render.drawings import effect_scale
from audit.render.drawings.effect_scale import Axis
from audit.render.sections.blocks import Block, Cell, Grid, Heading, Text
from audit.render.wording.findings import best, hesitation, measured, part, sentence, title, trained_rows
from audit.render.wording.posterior import ratio_in_plain, shown_ratio
from audit.render.wording.quantities import OVERALL, deciding, is_blind, judged_reading, judged_shown
from audit.schema import (
    EFFECT_KINDS,
    NO_AXIS,
    Evidence,
    LikelihoodRatio,
    Missing,
    PeopleKept,
    Rate,
    Report,
    Share,
)
from audit.wording import NAME, Replicate, interval, number, units, visible

GLANCE: Final = (
    ("gate", "Is it usable?"),
    ("output", "Does it still say it?"),
    ("causal", "Can base read it inside?"),
    ("decoding", "Do its own states show it?"),
    ("recovery", "Does it come back under attack?"),
)
ALWAYS: Final = ("gate", "output", "causal", "decoding")
"""Kinds of which the strongest finding stands on page one whatever it is."""
NAMED: Final = 5
"""So many names stand on page one; the findings have them all."""
SAYS_NOTHING: Final = "– says nothing here"
BROKEN: Final = Missing(missing="says nothing: the suspect is too damaged")
DECADES: Final = 6.0
"""Beyond this power of ten a ratio of two descriptions of the same readings is said to be larger."""


class Glance(NamedTuple):
    """One row of the summary on page one. ``strip`` is a drawing, or why there is none; ``number`` names the value;
    ``reason``: the line that it was held against, and why an outcome is neither; ``largest``: over layers, where an
    axis shows that one and what is judged is another."""

    question: str
    test: str
    strip: Markup
    number: str
    value: str
    ci95: str
    outcome: str
    reason: str = ""
    largest: str = ""


def glance(report: Report) -> tuple[Glance, ...]:
    """The strongest finding of each kind by the number that was judged, and what the two axes were read from; what is
    blind comes last, without a number."""
    read_from = {share.measurement for _, share in axes(report) if isinstance(share, Share)}
    rows: list[tuple[str, Evidence]] = []
    for kind, question in GLANCE:
        strongest = best(report, kind) if kind in ALWAYS else None
        others = [e for e in trained_rows(report, kind) if e is not strongest and measured(e) in read_from]
        rows += [(question, e) for e in ([] if strongest is None else [strongest]) + others[:1]]
    broken = report.verdict.word == "INVALID"
    shown = sorted(rows, key=lambda row: is_blind(row[1]))
    return tuple(_row(question, e, broken, measured(e) in read_from) for question, e in shown)


def _row(question: str, e: Evidence, broken: bool, axis: bool) -> Glance:
    """``broken``: the suspect is too damaged for any silence to be printed as one; ``axis``: one was read from it."""
    m, (value, ci95) = e.measurement, judged_shown(e)
    outcome = SAYS_NOTHING if broken and m.kind != "gate" and e.outcome != "trace found" else part(e)
    if isinstance(m.value, Missing):
        return Glance(question, title(m), escape(sentence(m.value.missing)), "", "missing", ci95, outcome)
    if is_blind(e):
        return Glance(question, title(m), Markup(""), "", value, ci95, outcome)
    drawing = "" if m.kind == "gate" else effect_scale.strip(e)
    strip = Markup(drawing)  # noqa: S704 - our own drawing, labels escaped
    reading = judged_reading(e)
    reasons = () if broken and m.kind != "gate" else (deciding(e).words, hesitation(e))
    reason = "; ".join(words for words in reasons if words)
    largest = f"largest {number(m.value)}" if axis and reading.name == OVERALL and number(m.value) != value else ""
    return Glance(question, title(m), strip, reading.name, value, ci95, outcome, reason, largest)


# ---- two axes ---------------------------------------------------------------------------------------------------
def axes(report: Report) -> tuple[Axis, ...]:
    """Outputs and internals; nothing where neither was measured."""
    verdict = report.verdict
    both = Axis("outputs", verdict.outputs), Axis("internals", verdict.internals)
    if not any(isinstance(axis.share, Share) for axis in both):
        return ()
    return tuple(axis._replace(share=BROKEN) for axis in both) if verdict.word == "INVALID" else both


def axes_drawing(report: Report) -> str:
    """Both axes as bars between never trained and base; empty where neither was measured."""
    both = axes(report)
    label = "; ".join(f"{axis.name}: {share_words(axis.share)}" for axis in both)
    return effect_scale.two_axes(both, f"Shares of base. {label}") if both else ""


def share_words(share: Share | Missing) -> str:
    """``0.51 of base (95 % 0.37–0.62)``, or that there is none."""
    if isinstance(share, Missing):
        return BROKEN.missing if share == BROKEN else f"not measured ({visible(share.missing, NAME)})"
    return f"{number(share.value)} of base (95 % {interval(share.ci95)})"


def measured_by(share: Share | Missing) -> str:
    """The measurement that a share was read from, in words."""
    return "" if isinstance(share, Missing) else effect_scale.measurement_words(share)


def axis_lines(report: Report) -> tuple[tuple[str, str], ...]:
    """Both axes as pairs of a term and what it is."""
    terms = {"outputs": "What it says (outputs)", "internals": "What it holds (internals)"}
    lines: list[tuple[str, str]] = []
    for name, share in axes(report):
        source = f", by {measured_by(share)}" if isinstance(share, Share) else ""
        lines.append((terms[name], f"{share_words(share)}{source}"))
    return tuple(lines)


# ---- who --------------------------------------------------------------------------------------------------------
def people_count(people: PeopleKept, over: Replicate) -> str:
    """``16 of 32 people (95 % interval 10 to 22) known``."""
    return f"{count_words(people, over)} known"


def known(report: Report) -> tuple[tuple[str, str], ...]:
    """:func:`people_words` under their title, as one pair; none where nothing says so."""
    words, people = people_words(report), report.verdict.people
    if not words and people != NO_AXIS and isinstance(people, Missing):
        clean = report.verdict.word == "CONSISTENT WITH NEVER TRAINED"
        words = f"{'nobody' if clean else 'not counted'}: {visible(people.missing)}"
    return ((_known_title(replicates_of(report.evidence)), words),) if words else ()


def _known_title(over: Replicate) -> str:
    return f"Which {over.plural} are known" if over.impersonal else "Who is known"


def people_words(report: Report, most: int = NAMED) -> str:
    """How many people are known, in which way, and who stands out by name; empty where nothing says so."""
    people, over = report.verdict.people, replicates_of(report.evidence)
    if isinstance(people, Missing):
        return ""
    level = f"at {number(people.level)} of what base knows of them"
    return f"{people_count(people, over)}, {level}. {_names(people, over, most)}"


def _manner(people: PeopleKept, over: Replicate) -> str:
    times = f"{number(10 ** min(abs(people.log10_ratio), DECADES))} times"
    likelier = f"more than {times}" if abs(people.log10_ratio) > DECADES else times
    ways = (f"if all is known of some {over.plural}", "if some is known of all")
    if abs(people.log10_ratio) < 0.3:
        return f"The readings are about as likely {ways[0]} as {ways[1]}."
    first, second = ways if people.log10_ratio > 0 else ways[::-1]
    return f"The readings are {likelier} likelier {first} than {second}."


def _names(people: PeopleKept, over: Replicate, most: int) -> str:
    rate = f"false discovery rate {100 * people.fdr:.3g} %"
    if not people.named:
        return f"{over.none.capitalize()} stands out by name ({rate})."
    names = [visible(name, NAME) for name in people.named[:most]]
    rest = len(people.named) - len(names)
    return f"By name ({rate}): {', '.join(names)}{f' and {rest} more' if rest > 0 else ''}."


def audited(report: Report) -> str:
    """What was audited: how many people (images, groups) of how many, and what is said of the others."""
    over = replicates_of(report.evidence)
    judged = [e.measurement for e in report.evidence if e.measurement.kind in EFFECT_KINDS and e.measurement.units]
    trained = [m for m in judged if m.form == "trained" and m.mode == "controlled"] or judged
    if not trained:
        return f"{over.none}: no test speaks over {over.plural}"
    most = max(trained, key=lambda m: m.units)
    forget = report.cohorts.get("forget", {})
    total = forget.get("groups", forget.get(over.plural, 0))
    fewest = min(m.units for m in trained)
    if total < most.units:
        return units(most)
    spread = f" (by some tests {fewest})" if fewest < most.units else ""
    left = total - most.units
    others = f"; of the other {left} nothing is said" if left else ""
    word = over.singular if most.units == 1 else over.plural
    return f"{most.units} of {total} {word} of the forget set{spread}{others}{_unknown(report, over)}"


def _unknown(report: Report, over: Replicate) -> str:
    groups = {name for role in report.roles_audited for name in role.unknown}
    return (
        f"; base shows no knowledge of {len(groups)} of them, {'which' if over.impersonal else 'who'} are not counted"
        if groups
        else ""
    )


# ---- three lines ------------------------------------------------------------------------------------------------
def three_lines(report: Report, not_tested: str) -> tuple[tuple[str, str], ...]:
    """How sure, who was audited, what was not tested: what stands right under a verdict."""
    who = "What" if replicates_of(report.evidence).impersonal else "Who"
    return ("How sure", _surety(report)), (f"{who} was audited", audited(report)), ("Not tested", not_tested)


def _surety(report: Report) -> str:
    """Both error counts, or that none is known; then the ratio, and what a verdict lacks that is not of full
    strength."""
    ratio = shown_ratio(report)
    lacks = "" if report.verdict.strength != "weak" else " Strength: weak, for want of models to compare with."
    if isinstance(ratio, LikelihoodRatio):
        return (
            f"false alarms in worlds of known truth: {_worlds(ratio.false_alarms)}. "
            f"Missed fakes: {_worlds(ratio.misses)}. {ratio_in_plain(ratio)}{lacks}"
        )
    if isinstance(report.verdict.ratio, LikelihoodRatio):
        return f"{visible(ratio.missing[0].lower() + ratio.missing[1:])}.{lacks}"
    return f"no error rate is known: judged by this case alone, so no likelihood ratio is given.{lacks}"


def _worlds(rate: Rate) -> str:
    """``0 of 60 (with 95 % confidence at most 4.9 %)``."""
    return f"{rate.k} of {rate.n} (with 95 % confidence at most {number(100 * rate.upper95)} %)"


# ---- as blocks --------------------------------------------------------------------------------------------------
def axes_blocks(report: Report) -> tuple[Block, ...]:
    """Both axes and the people as tables, for the findings; nothing where neither was measured."""
    blocks: list[Block] = []
    if both := axes(report):
        rows = tuple((Cell(a.name), *_ends(a.share), Cell(measured_by(a.share) or share_words(a.share))) for a in both)
        heads = ("Axis", "Share of base", "95 % low", "95 % high", "Read from")
        blocks += [
            Heading("The two axes of the verdict"),
            Grid("Outputs and internals, as shares of base", heads, rows),
        ]
    people = report.verdict.people
    if isinstance(people, PeopleKept):
        over = replicates_of(report.evidence)
        blocks += [Heading(_known_title(over)), Text(_manner(people, over))]
        if people.named:
            rows = tuple((Cell(str(i), "number"), Cell(visible(name, NAME), "code"))
                         for i, name in enumerate(people.named, 1))  # fmt: skip
            those = over.rephrased("People who stand out, strongest first")
            caption = f"{those}, at a false discovery rate of {100 * people.fdr:.3g} %"
            blocks.append(Grid(caption, ("Rank", "Name"), rows, folded=len(rows) > NAMED))
    return tuple(blocks)


def _ends(share: Share | Missing) -> tuple[Cell, ...]:
    if isinstance(share, Missing):
        return tuple(Cell("not measured", "number") for _ in range(3))
    return tuple(Cell(number(x), "number") for x in (share.value, share.ci95.lo, share.ci95.hi))
