"""A forecast as sections, HTML and Markdown: pure functions of its document, as every report's."""

from collections.abc import Sequence
from typing import Final

from rich.table import Table

from audit.render.formats.html import environment
from audit.render.formats.markdown import chapters
from audit.render.sections.blocks import Bullets, Cell, Facts, Grid, Section, Text
from audit.render.wording.predictors import PREDICTORS
from audit.schema import Basis, Forecast, ForecastReport, Missing
from audit.wording import CELL, NAME, moment, number, visible

SHOWN_ITEMS: Final = 60
SHOWN_GROUPS: Final = 20
POLICY: Final = "default-src 'none'; style-src 'unsafe-inline'"


def headline(report: ForecastReport) -> str:
    """The sentence that matters."""
    hardest, n = report.groups[0], report.cohorts["forget_items"]
    first = (
        "No group is known to be harder than another: all their 90 % intervals overlap"
        if cannot_rank(report)
        else f"The hardest group is {_name(hardest.name)} (mean rank {hardest.rank:.2f})"
    )
    rests = "and short pilot runs on this base" if report.pilots else "and on no unlearning run of this base"
    return (
        f"{n} items of {report.cohorts['forget_groups']} groups, ranked by how hard they will be to forget. "
        f"{first}. The ranking rests on "
        f"{report.basis.worlds} worlds of known truth {rests}."
    )


def forecast_sections(report: ForecastReport) -> tuple[Section, ...]:
    """What every view shows, in this order."""
    return (
        Section("answer", "How hard will it be?", (Text(headline(report), "lead"), *_trust(report))),
        Section("groups", "Groups, hardest first", (_ranked("Groups", "Items", report.groups),)),
        Section("order", "A recommended order", _order(report)),
        Section("collateral", "What it may cost", _collateral(report)),
        Section("entangled", "What is tied to what must stay", _entangled(report)),
        Section("items", "Items, hardest first", (_items(report),)),
        Section("basis", "What this rests on", _basis(report)),
        Section("limits", "Limits", (Bullets(report.limits),)),
    )


def _name(text: str) -> str:
    return visible(text, NAME)


def _span(lo: float, hi: float) -> str:
    return f"{lo:.2f} to {hi:.2f}"


def _trust(report: ForecastReport) -> tuple[Text, ...]:
    """How far the ranking can be trusted, in numbers."""
    basis = report.basis
    value, ci = (basis.with_pilot, basis.with_pilot_ci95) if report.pilots else (basis.spearman, basis.spearman_ci95)
    accuracy = (
        f"In worlds and with methods that the fit had not seen, its ranks{' with one pilot' if report.pilots else ''} "
        f"correlate {value:.2f} ({_span(ci.lo, ci.hi)}) with the measured difficulty. Length and loss alone reach "
        f"{basis.plain:.2f} there, and difficulty measured by the other methods {basis.ceiling:.2f}, the ceiling of "
        f"this comparison. {basis.coverage:.0%} of items lay inside their 90 % interval."
    )
    where = (
        "This case is of the kind that the fit knows."
        if basis.inside
        else "This case is unlike the worlds of the fit: "
        + "; ".join(visible(reason, CELL) for reason in basis.because)
        + ". The ranking is a transfer, and these numbers need not hold."
    )
    return Text(accuracy), Text(where)


def _ranked(caption: str, count: str, forecasts: Sequence[Forecast]) -> Grid:
    rows = tuple(
        (Cell(_name(f.name)), Cell(str(f.items), "number"), Cell(f"{f.rank:.2f}", "number"),
         Cell(_span(f.interval.lo, f.interval.hi), "number"), Cell(_number(f.pilot), "number"))
        for f in forecasts
    )  # fmt: skip
    return Grid(caption, (caption[:-1], count, "Rank (1 hardest)", "90 %", "Pilot (normal score)"), rows)


def _number(value: float | Missing) -> str:
    return "none" if isinstance(value, Missing) else number(value)


def cannot_rank(report: ForecastReport) -> bool:
    """Is there a rank that every group may have? Then none is known to be harder than another."""
    ends = [group.interval for group in report.groups]
    return len(ends) > 1 and max(end.lo for end in ends) <= min(end.hi for end in ends)


def _order(report: ForecastReport) -> tuple[Text | Bullets, ...]:
    if cannot_rank(report):
        return (Text("The 90 % intervals of all groups overlap: they cannot be ranked, so no order is recommended."),)
    advice = (
        "Easy groups first, and of groups about as hard those that fewer retained items are tied to: what is easy "
        "costs least, and leaves the most room for what is not."
    )
    return Text(advice), Bullets(tuple(_name(name) for name in report.order))


def _collateral(report: ForecastReport) -> tuple[Text | Grid, ...]:
    explanation = (
        "Share of the retained facts' probability that was gone when the median item had come down to the level of a "
        "model that never knew it. From worlds of known truth it is a range over worlds, not a forecast of this base."
    )
    rows = tuple(
        (Cell(_name(c.method)), Cell(_span(c.share_lost.lo, c.share_lost.hi), "number"), Cell(c.source))
        for c in report.collateral
    )  # fmt: skip
    return Text(explanation), Grid("Cost by method", ("Method", "Share lost", "From"), rows)


def _entangled(report: ForecastReport) -> tuple[Text | Grid, ...]:
    passed = "steady" if report.stability.passed else "inconclusive"
    explanation = (
        "Retained items whose circuit or gradient is most like that of the forget set. Watch these first. By circuits "
        f"the list is {passed} (see what this rests on). In the worlds of the fit, the damage that was done to "
        f"retained items correlates {_correlates(report, 'circuit_cosine')} with the circuit cosine, "
        f"{_correlates(report, 'gradient_cosine')} with the gradient cosine and {_correlates(report, 'one_method')} "
        "with the damage by one other method: a pilot run says more than both ties."
    )
    rows = tuple(
        (Cell(_name(e.name)), Cell(_name(e.nearest)), Cell(f"{e.circuit_cosine:.2f}", "number"),
         Cell(f"{e.gradient_cosine:.2f}", "number"), Cell(_number(e.damage), "number"))
        for e in report.entangled
    )  # fmt: skip
    columns = ("Retained item", "Nearest forget item", "Circuit cosine", "Gradient cosine", "Lost in pilots")
    return Text(explanation), Grid(f"{len(rows)} most entangled retained items", columns, rows, folded=len(rows) > 20)


def _correlates(report: ForecastReport, tie: str) -> str:
    ci = report.basis.ties_ci95[tie]
    return f"{report.basis.ties[tie]:.2f} ({_span(ci.lo, ci.hi)})"


def _items(report: ForecastReport) -> Grid:
    rows = tuple(
        (Cell(_name(f.name)), Cell(_name(f.group)), Cell(f"{f.rank:.2f}", "number"),
         Cell(_span(f.interval.lo, f.interval.hi), "number"), Cell(", ".join(f.because)))
        for f in report.items[:SHOWN_ITEMS]
    )  # fmt: skip
    shown = f"{len(rows)} of {len(report.items)} items" if len(rows) < len(report.items) else f"{len(rows)} items"
    return Grid(shown, ("Item", "Group", "Rank (1 hardest)", "90 %", "Because"), rows, folded=len(rows) > 20)


def _basis(report: ForecastReport) -> tuple[Facts | Grid, ...]:
    s, basis = report.stability, report.basis
    rows = [
        ("Fit", f"{basis.worlds} worlds, {len(basis.methods)} methods ({', '.join(basis.methods)})"),
        ("Inside 90 % intervals", f"{basis.coverage:.3f} ({_span(basis.coverage_ci95.lo, basis.coverage_ci95.hi)})"),
        ("Anchored circuits", _anchored(basis)),
        ("Base recalls", f"a mean probability of {report.recall:.3f} on the forget items"),
        ("Circuits", f"the {s.edges} largest edges an item; {s.swapped} items have a partner of the same template, the "
                     "others are held against mean activations"),
        ("Overlap of circuits", f"{_number(s.partners)} with other partners, {_number(s.corruptions)} with mean "
                                f"activations (needed: 0.6); the gate is {'passed' if s.passed else 'not passed'}"),
        ("Completeness gap", f"{s.completeness_gap:.3f} of the change of the loss, median"),
        *((f"Pilot {_name(p.method)}", f"{p.steps} steps; median look {p.median_steps:.0f}, {p.not_reached} items "
           f"never came down; ranks by base alone agree {p.agreement:.2f} with it") for p in report.pilots),
        ("Report", f"{report.report_id}, plan {report.plan_hash[:12]}, tool {_name(report.tool.get('code', ''))}"),
        *((f"{e.role}", f"{_name(e.path)}, {e.fingerprint}") for e in report.exhibits),
    ]  # fmt: skip
    spread = tuple(
        (Cell(_name(name.replace("_", " "))), Cell(PREDICTORS.get(name, "not described here")),
         Cell(number(i.lo), "number"), Cell(number(i.hi), "number"))
        for name, i in report.predictors.items()
    )  # fmt: skip
    return Facts(tuple(rows)), Grid(
        "Predictors on base, middle 90 % of the items", ("Predictor", "What it is", "5 %", "95 %"), spread
    )


def _anchored(basis: Basis) -> str:
    """Why CUD takes no part."""
    ci = basis.cud_gain_ci95
    added = (
        f"beside length and loss they added {basis.cud_gain:.3f} ({ci.lo:.3f} to {ci.hi:.3f}) of R2 in the worlds of "
        "the fit"
    )
    condition = "they need items that were unlearned before, and " if ci.lo > 0 else ""
    return f"CUD, circuits between easy and hard anchors, is not used: {condition}{added}"


def forecast_summary(report: ForecastReport) -> tuple[str | Table, ...]:
    """What the terminal shows: the sentence, how far to trust it, the groups, the reports' names."""
    table = Table(title=f"groups of {_name(report.case.name)}, hardest first")
    for heading in ("group", "items", "rank", "90 %"):
        table.add_column(heading)
    for f in report.groups[:SHOWN_GROUPS]:
        table.add_row(_name(f.name), str(f.items), f"{f.rank:.2f}", _span(f.interval.lo, f.interval.hi))
    return headline(report), *(block.text for block in _trust(report)), table, report.report_id


def forecast_html(report: ForecastReport) -> str:
    """One static document: no script, no request, the same bytes for the same forecast."""
    return (
        environment()
        .get_template("forecast.html.j2")
        .render(
            name=_name(report.case.name), report_id=_name(report.report_id), created=moment(report.created),
            tool=_name(report.tool.get("code", "")), policy=POLICY, sections=forecast_sections(report),
        )
    )  # fmt: skip


def forecast_markdown(report: ForecastReport) -> str:
    """The same sections for pull requests and issues."""
    head = [f"# Forecast: {_name(report.case.name)}", "", f"{report.report_id}, {moment(report.created)}", ""]
    return "\n".join([*head, *chapters(forecast_sections(report)), f"*End of forecast {report.report_id}*"]) + "\n"
