"""The page of a sweep: every audit with its verdict and a link to its report, and why the others have none."""

from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple
from urllib.parse import quote

from audit.render.formats.html import environment
from audit.render.formats.terminal import LEGEND, effect_cell
from audit.render.wording.findings import VERDICT_SYMBOL, best, verdict_reason
from audit.schema import Report
from audit.wording import CELL, NAME, visible

POLICY: Final = "default-src 'none'; style-src 'unsafe-inline'"
KINDS: Final = ("output", "causal", "decoding", "gate")


class _Row(NamedTuple):
    """One audit: its name, where its report lies, its verdict, and the strongest number of each kind."""

    name: str
    link: str
    verdict: str
    reason: str
    effects: tuple[str, ...]


def sweep_html(reports: Sequence[Report], faults: Mapping[str, str]) -> str:
    """The audits of a sweep as one HTML document that lies beside their folders: no script, no request.

    ``reports`` by the names of their cases, which name their folders; ``faults``: what is wrong with each of the
    others, by name.
    """
    rows = [_row(report) for report in reports]
    words = [report.verdict.word for report in reports]
    counts = [(f"{VERDICT_SYMBOL[word]} {word}", words.count(word)) for word in VERDICT_SYMBOL if word in words]
    return environment().get_template("sweep.html.j2").render(
        rows=rows, counts=counts, legend=LEGEND, of=len(reports) + len(faults), policy=POLICY,
        faults=[(visible(name, NAME), visible(" ".join(fault.split()))) for name, fault in faults.items()],
    )  # fmt: skip


def _row(report: Report) -> _Row:
    name = report.plan.case.name
    return _Row(
        visible(name, NAME), f"{quote(name, safe='')}/report.html",
        f"{VERDICT_SYMBOL[report.verdict.word]} {report.verdict.word}", visible(verdict_reason(report), CELL),
        tuple(effect_cell(best(report, kind)) for kind in KINDS),
    )  # fmt: skip
