"""Reports to the terminal: one table over several audits, and one audit in a dozen lines.

Rich objects only; whoever prints them decides where. Every state is a symbol and a word, never a colour alone, and
text from elsewhere never reaches Rich as markup.
"""

from collections.abc import Sequence
from typing import Final

from rich.box import SIMPLE_HEAD
from rich.console import Group
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from audit.render.sections.detections import findings_of
from audit.render.sections.glance import axis_lines, glance, known, three_lines
from audit.render.sections.listings import listing_said
from audit.render.sections.pageone import untested
from audit.render.sections.verdict_rows import NOT_MEASURED, VerdictRow, verdict_row
from audit.render.wording.detections import (
    answer_sentence,
    beside_verdict,
    finding_name,
    replay,
    slot_words,
    transfer_words,
    unmasking,
)
from audit.render.wording.findings import VERDICT_SYMBOL, best, meaning, sentence, title
from audit.render.wording.posterior import how_sure
from audit.render.wording.quantities import OVERALL, is_blind, judged_reading
from audit.schema import Evidence, Missing, Report, VerdictWord
from audit.wording import NAME, number, replicate_of, visible

STYLE: Final[dict[VerdictWord, str]] = {
    "INTACT": "bold dark_orange3", "PARTIAL": "bold dark_orange3", "SUPPRESSED": "bold dark_orange3",
    "CONSISTENT WITH NEVER TRAINED": "bold", "INCONCLUSIVE": "bold", "INVALID": "bold magenta",
}  # fmt: skip


def table(reports: Sequence[Report]) -> Table:
    """One row an audit: the strongest output, causal and decoding effects, utility, the verdict and why."""
    out = Table(box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0), expand=True)
    out.caption, out.caption_justify = LEGEND, "left"
    out.add_column("suspect", min_width=12, max_width=18, overflow="fold")
    for name in ("output", "causal", "decoding", "utility"):
        out.add_column(name, justify="right", no_wrap=True)
    out.add_column("verdict, and why", ratio=1, min_width=26)
    for report in reports:
        row = verdict_row(report)
        out.add_row(
            Text(row.checkpoint),
            *(effect_cell(best(report, kind)) for kind in ("output", "causal", "decoding", "gate")),
            Text.assemble(
                (row.verdict, STYLE[report.verdict.word]),
                f"\n{row.control}" if row.control else "",
                f"\n{row.reason}",
                *(f"\nbeside it: {name}" for name in row.beside),
                _axes(row),
                f"\n{row.sure}",
            ),
        )
    return out


def _axes(row: VerdictRow) -> str:
    """Both axes and the count of people; nothing where they were not measured."""
    shares = [f"{name} {share}" for name, share in (("outputs", row.outputs), ("internals", row.internals))
              if share != NOT_MEASURED]  # fmt: skip
    parts = [*shares, *([row.people] if row.people else [])]
    return f"\n{'; '.join(parts)}" if parts else ""


LEGEND: Final = (
    "Judged numbers: 0 = never trained, 1 = base. With @ the largest over layers and its layer, with ~ the overall "
    "effect, else the one effect. Utility: share of base's on retained items. ▲ trace found, ▼ below never trained, "
    "● no trace found, ◆ inconclusive, – not run."
)


def effect_cell(e: Evidence | None) -> str:
    """The judged number of a finding as a cell of a table: its outcome as a mark, and where it was found."""
    if e is None:
        return "–"
    m, reading = e.measurement, judged_reading(e)
    if isinstance(m.value, Missing):
        return "◆ none"
    if is_blind(e):
        return "◆ blind"
    symbol = {"trace found": "▲ ", "no trace found": "● ", "inconclusive": "◆ ", "not run": "– "}[e.outcome]
    mark = "" if m.kind == "gate" else "▼ " if e.direction == "below" else symbol
    overall = reading.name == OVERALL
    where = " ~" if overall else "" if m.layer is None or m.kind == "gate" else f" @{m.layer}"
    return f"{mark}{number(reading.value)}{where}"


def summary(report: Report) -> Group:
    """One report: verdict, the four numbers, what limits it."""
    verdict = report.verdict
    head = Text.assemble(
        (f"{VERDICT_SYMBOL[verdict.word]} {verdict.word}", STYLE[verdict.word]),
        f"  {visible(report.plan.case.name, NAME)}  {visible(report.report_id, NAME)}",
    )
    numbers = Table(box=None, pad_edge=False)
    for name in ("question", "test", "judged number", "95 %", "outcome"):
        numbers.add_column(name)
    for row in glance(report):
        value = f"{row.number} {row.value}".strip()
        numbers.add_row(*(Text(x) for x in (row.question, row.test, value, row.ci95, row.outcome)))
    limits = Text("\n".join(f"- {sentence(x)}" for x in verdict.limits))
    ran = f"{len(report.evidence)} findings, {len(report.skips)} skipped, {len(report.failures)} failed"
    terms = (*axis_lines(report), *known(report))
    terms += three_lines(report, untested(report))[1:]
    beside = (f"{term}: {words}" for term, words in beside_verdict(report))
    lines = Text("\n".join((*beside, *(f"{term}: {sentence(words)}" for term, words in terms))))
    first = (Text(meaning(report)), Text(how_sure(report)), lines)
    tables = [f"{title(m)}: {words}" for m in (e.measurement for e in report.evidence) for words in listing_said(m)]
    listed = (Text("\n".join(("Single findings, as tables in the report:", *tables))),) if tables else ()
    body = (*first, Text(""), numbers, Text(""), *_not_held(report), *listed, Text("Limits:"), limits, Text(ran))
    return Group(head, *(Padding(part, (0, 0, 0, 2)) for part in body))


def _not_held(report: Report) -> tuple[Text, ...]:
    """What rules of yes or no did not find, and what each silence is worth; what holds stands under the verdict."""
    rows = [(m, f) for m, f in findings_of(report.evidence) if f.holds is not True]
    lines = (f"- {finding_name(f)}: {answer_sentence(m, f)}" for m, f in rows)
    return (Text("\n".join(("Rules of yes or no:", *lines))),) if rows else ()


def trigger_lines(report: Report, case: str, run: str) -> tuple[Text, ...]:
    """The string of every finding that holds and has one: what it does for held-out people, and the line that says it
    again (from ``case``), which is one line however narrow the terminal; or how a masked one is seen in ``run``. Both
    are words of a shell."""
    lines: list[Text] = []
    for m, finding in findings_of(report.evidence):
        trigger = finding.trigger
        if finding.holds is not True or trigger is None:
            continue
        over = replicate_of(m)
        shown = f"masked, {visible(trigger.text, NAME)}" if trigger.masked else visible(trigger.text)
        lines += [
            Text(f"{finding_name(finding)}: the string is: {shown}"),
            Text(f"  {slot_words(trigger)}"),
            Text(f"  transfer to held-out {over.plural}: {transfer_words(trigger, over)}"),
            Text(f"  {unmasking(run) if trigger.masked else 'to say it again:'}", no_wrap=True),
            *(() if trigger.masked else (Text(replay(trigger, case), no_wrap=True),)),
        ]
    return tuple(lines)


def profile_table(shares: Sequence[tuple[str, float, float]]) -> tuple[Table | str, ...]:
    """What each unit took (name, CPU-seconds) and which share of it lay in model passes, the longest first."""
    if not shares:
        return ("no profile: nothing was measured (--force-new measures again)",)
    out = Table(box=SIMPLE_HEAD, pad_edge=False, title="where the time went", title_justify="left")
    for name in ("unit", "CPU-seconds", "in model passes", "over its passes"):
        out.add_column(name, justify="left" if name == "unit" else "right")
    for name, cpu_s, passes in sorted(shares, key=lambda share: -share[1]):
        out.add_row(name, f"{cpu_s:.2f}", f"{passes:.0%}", f"{1 / passes:.2f}x" if passes > 0 else "")
    return (out, "a timeline of each unit's calls lies beside the run, in the folder of its name and .profile")
