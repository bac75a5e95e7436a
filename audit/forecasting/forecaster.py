"""``residua forecast``: open the case, ask base, rank the items by the fitted forecast, write the report.

A killed forecast goes on where it was; a finished one of the same plan is returned as it is.
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import scipy
from jaxtyping import Float
from numpy import ndarray

from audit.bench import Bench
from audit.case import CaseFile, OpenCase, open_case
from audit.forecasting import model
from audit.forecasting.model import Fitted, Predicted
from audit.forecasting.pilot import LOOKS, Watched, pilot_of
from audit.forecasting.stages import Stages
from audit.forecasting.survey import STAGES, ForecastRows, Surveyed, survey
from audit.planning import RunSettings, Step, Watch, make_bench, unwatched
from audit.probing import check_recall
from audit.render import forecast_html, forecast_markdown
from audit.runs import Received, code_version, environment, exhibits, now
from audit.schema import (
    AuditError,
    Basis,
    Collateral,
    Entangled,
    ExitCode,
    Forecast,
    ForecastReport,
    Interval,
    Missing,
    Pilot,
    content_key,
    forecast_id,
)
from audit.storage import write_atomic
from audit.version import __version__
from audit.wrappers import unused_tensors

REPORT = "forecast.json"
LISTED = 40
"""At most so many retained items stand in the entanglement list, most entangled first."""
LEAST_ITEMS = 10


class _Ready(NamedTuple):
    case: OpenCase
    bench: Bench
    plan_hash: str


def forecast(
    case: CaseFile | Path | str,
    out: Path | str,
    settings: RunSettings | None = None,
    watch: Watch = unwatched,
    pilots: tuple[str, ...] = (),
) -> ForecastReport:
    """The forecast of a case or a case file, written to ``out`` as JSON, HTML and Markdown.

    AuditError: code 2 for bad input, a pilot that is none, fewer than ten items, or another forecast in ``out``; code 4
    where base does not recall the items (there is nothing to unlearn under this template).
    """
    for name in pilots:
        pilot_of(name)
    out, settings = Path(out), (settings or RunSettings()).settled()
    loaded = case if isinstance(case, CaseFile) else CaseFile.read_forecast(Path(case))
    opened = open_case(loaded.case, loaded.root, out, online=settings.online)
    if opened.modality != "text":
        problem = f"{opened.base.source}: a forecast reads the circuits of a language model, and this one reads images"
        raise AuditError(problem, "forecast a case of texts; `residua run` audits classifiers of images")
    ready = _Ready(opened, make_bench(settings), _plan_hash(opened, settings, pilots))
    before = _finished(out, ready.plan_hash, settings.force_new)
    if before is not None:
        watch(Step("final", f"{out} is finished: nothing is measured again", 1, 1, finished=True))
        return before
    recalled = check_recall(ready.bench, opened)
    stages = Stages(out, ready.plan_hash, (*STAGES, *(f"pilot {name}" for name in pilots)), watch)
    surveyed = survey(ready.bench, opened, stages, pilots)
    if len(surveyed.rows.forget_items) < LEAST_ITEMS:
        raise AuditError(f"a forecast ranks items, and needs {LEAST_ITEMS} of them", "give more forget items")
    report = _report(ready, settings, surveyed, model.load())
    report = report.model_copy(update={"recall": recalled.base, "timings": tuple(stages.timings), "created": now()})
    report = report.model_copy(update={"report_id": forecast_id(report)})
    write_atomic(out / "forecast.html", forecast_html(report).encode())
    write_atomic(out / "forecast.md", forecast_markdown(report).encode())
    write_atomic(out / REPORT, (report.model_dump_json(indent=1) + "\n").encode())
    watch(Step("report", str(out), 1, 1, finished=True))
    return report


def _plan_hash(case: OpenCase, settings: RunSettings, pilots: tuple[str, ...]) -> str:
    """Names everything that decides the numbers: code, case, data, base, how it is run, pilots."""
    ancestor = None if case.ancestor is None else case.ancestor.key
    return content_key(
        code_version(), case.case.canonical(), {str(c): sha for c, sha in case.data_sha256.items()}, case.base.key,
        ancestor, [settings.device, settings.dtype, settings.attention], pilots,
    )  # fmt: skip


def _finished(out: Path, plan_hash: str, force_new: bool) -> ForecastReport | None:
    path = out / REPORT
    if not path.is_file() or force_new:
        return None
    stored = ForecastReport.model_validate_json(path.read_bytes())
    if stored.plan_hash != plan_hash:
        raise AuditError(
            f"{out} holds another forecast ({stored.plan_hash[:12]}, now {plan_hash[:12]})",
            "name another folder with -o, or use --force-new, which writes over it",
        )
    if forecast_id(stored) != stored.report_id:
        raise AuditError(
            f"{path} was changed after it was written", "make it again with --force-new", ExitCode.INTEGRITY
        )
    return stored


# ---- the report -------------------------------------------------------------------------------------------------
def _report(ready: _Ready, settings: RunSettings, surveyed: Surveyed, fitted: Fitted) -> ForecastReport:
    rows, case = surveyed.rows, ready.case
    pilot = _pilot_ranks(surveyed.pilots)
    ranked = model.predicted(fitted, surveyed.predictors.by_name, pilot)
    groups = tuple(item.group for item in rows.forget_items)
    received = [Received("base", case.base)] + ([Received("ancestor", case.ancestor)] if case.ancestor else [])
    entangled = _entangled(rows, surveyed)
    by_group = _groups(groups, ranked, pilot)
    return ForecastReport(
        report_id="", created="", tool={"name": "residua", "version": __version__, "code": code_version()},
        plan_hash=ready.plan_hash, case=case.case, exhibits=exhibits(tuple(received), case.root, unused_tensors),
        environment=environment(ready.bench.provenance(), {}),
        cohorts={
            "forget_items": len(rows.forget), "forget_groups": len(set(groups)), "retain_items": len(rows.retain),
        },
        recall=0.0, items=_items(rows, ranked, pilot), groups=by_group, collateral=_collateral(fitted, surveyed.pilots),
        entangled=entangled, order=_order(by_group, entangled, rows), basis=_basis(fitted, case, ready.bench),
        stability=surveyed.stability,
        predictors={name: _spread(values) for name, values in surveyed.predictors.by_name.items()},
        pilots=tuple(_pilot(name, w, ranked) for name, w in surveyed.pilots.items()),
        limits=_limits(fitted, surveyed), timings=(),
    )  # fmt: skip


def _spread(values: Float[ndarray, " item"]) -> Interval:
    """The middle 90 % of a predictor over the items."""
    lo, hi = np.nanpercentile(values, [5, 95])
    return Interval(lo=float(lo), hi=float(hi))


def _pilot_ranks(pilots: dict[str, Watched]) -> Float[ndarray, " item"] | None:
    """Mean normal score of the pilots' steps."""
    if not pilots:
        return None
    return np.mean([model.normal_scores(watched.steps) for watched in pilots.values()], 0)


def _items(rows: ForecastRows, ranked: Predicted, pilot: Float[ndarray, " item"] | None) -> tuple[Forecast, ...]:
    names = list(ranked.shares)
    shares = np.stack([ranked.shares[name] for name in names], 1)
    forecasts: list[Forecast] = []
    for i, item in enumerate(rows.forget_items):
        most = np.argsort(-np.abs(shares[i]))[:3]
        forecasts.append(
            Forecast(
                name=item.id, group=item.group, items=1, rank=float(ranked.rank[i]),
                interval=Interval(lo=float(ranked.lo[i]), hi=float(ranked.hi[i])),
                because=tuple(f"{'+' if shares[i, j] > 0 else '-'} {names[j]}" for j in most if shares[i, j]),
                pilot=Missing(missing="no pilot run") if pilot is None else float(pilot[i]),
            )
        )  # fmt: skip
    return tuple(sorted(forecasts, key=lambda f: -f.rank))


def _groups(groups: tuple[str, ...], ranked: Predicted, pilot: Float[ndarray, " item"] | None) -> tuple[Forecast, ...]:
    """Means of the items' ranks. The interval treats the items of a group as one: it is as wide as an item's."""
    forecasts: list[Forecast] = []
    for group in dict.fromkeys(groups):
        at = [i for i, g in enumerate(groups) if g == group]
        forecasts.append(
            Forecast(
                name=group, group=group, items=len(at), rank=float(ranked.rank[at].mean()),
                interval=Interval(lo=float(ranked.lo[at].mean()), hi=float(ranked.hi[at].mean())),
                pilot=Missing(missing="no pilot run") if pilot is None else float(pilot[at].mean()),
            )
        )  # fmt: skip
    return tuple(sorted(forecasts, key=lambda f: -f.rank))


def _entangled(rows: ForecastRows, surveyed: Surveyed) -> tuple[Entangled, ...]:
    """Retained items by the mean rank of their two ties, strongest first."""
    ties = surveyed.predictors.entangled
    damage = [w.damage for w in surveyed.pilots.values()]
    tied = scipy.stats.rankdata(ties["circuit_cosine"]) + scipy.stats.rankdata(ties["gradient_cosine"])
    return tuple(
        Entangled(
            name=rows.retain_items[i].id, group=rows.retain_items[i].group,
            nearest=rows.forget_items[int(ties["nearest"][i])].id,
            circuit_cosine=float(ties["circuit_cosine"][i]), gradient_cosine=float(ties["gradient_cosine"][i]),
            damage=float(np.mean([d[i] for d in damage])) if damage else Missing(missing="no pilot run"),
        )
        for i in np.argsort(-tied, kind="stable")[:LISTED].tolist()
    )  # fmt: skip


def _order(groups: tuple[Forecast, ...], entangled: tuple[Entangled, ...], rows: ForecastRows) -> tuple[str, ...]:
    """Easy groups first; of groups about as hard, those first that fewer listed retained items are tied to."""
    group_of = {item.id: item.group for item in rows.forget_items}
    ties = {g.name: sum(group_of[e.nearest] == g.name for e in entangled) for g in groups}
    return tuple(g.name for g in sorted(groups, key=lambda g: (round(g.rank, 1), ties[g.name], g.rank)))


def _collateral(fitted: Fitted, pilots: dict[str, Watched]) -> tuple[Collateral, ...]:
    """What reaching the never-trained level cost: in the worlds of the fit, and in the pilots."""
    from_fit = [
        Collateral(method=name, share_lost=cost, source="worlds of known truth") for name, cost in fitted.cost.items()
    ]
    return tuple(from_fit) + tuple(
        Collateral(method=name, share_lost=Interval(lo=w.share_lost, hi=w.share_lost), source="pilot run")
        for name, w in pilots.items()
    )


def _spearman(a: Float[ndarray, " item"], b: Float[ndarray, " item"]) -> float:
    return float(np.corrcoef(scipy.stats.rankdata(a), scipy.stats.rankdata(b))[0, 1])


def _pilot(name: str, watched: Watched, ranked: Predicted) -> Pilot:
    base_score = ranked.score - ranked.shares.get("pilot", np.zeros_like(ranked.score))
    agreement = _spearman(base_score, watched.steps) if np.ptp(watched.steps) > 0 else 0.0
    return Pilot(
        method=name, steps=int(getattr(pilot_of(name), "steps", 0)),
        median_steps=float(np.median(watched.steps)), not_reached=int((watched.steps > LOOKS).sum()),
        share_lost=watched.share_lost, agreement=agreement,
    )  # fmt: skip


def _basis(fitted: Fitted, case: OpenCase, bench: Bench) -> Basis:
    """Is this case like the worlds of the fit?"""
    size = sum({p.data_ptr(): p.numel() for p in bench.open(case.base).parameters().values()}.values())
    because: list[str] = []
    if not fitted.parameters.lo / 2 <= size <= fitted.parameters.hi * 2:
        span = f"{fitted.parameters.lo:,.0f} to {fitted.parameters.hi:,.0f}"
        because.append(f"base has {size:,} parameters; the worlds of the fit have {span}")
    if any(item.key is None for item in case.cohorts["forget"]):
        because.append("items state no key: content tokens are chosen by rule; the fit's are single words")
    measures = ("spearman", "ceiling", "plain", "cud_gain", "ties", "with_pilot")
    intervals = ("spearman_ci95", "plain_ci95", "cud_gain_ci95", "ties_ci95", "with_pilot_ci95", "coverage_ci95")
    return Basis(
        **fitted.model_dump(include={*measures, *intervals, "methods"}), worlds=len(fitted.worlds),
        coverage=fitted.coverage.k / fitted.coverage.n, inside=not because, because=tuple(because),
    )  # fmt: skip


def _limits(fitted: Fitted, surveyed: Surveyed) -> tuple[str, ...]:
    limits = [
        "Ranks are within this forget set: they say which items are harder than which, not how many steps it takes.",
        f"The fit is from {len(fitted.worlds)} small worlds of invented facts; no other knowledge was tried.",
    ]
    if not surveyed.stability.passed:
        limits.append(
            "Circuits depend on what they are held against here (overlap below .6), so that the entanglement list is "
            "inconclusive by circuits; its gradient column does not rest on them."
        )
    if surveyed.pilots:
        limits.append("Pilots ran with the unlearners' own default settings; other settings may order items otherwise.")
    return tuple(limits)
