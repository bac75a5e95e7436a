"""Numbers in the shapes that others use: OpenUnlearning's ``*_EVAL.json`` in and out, and a model card's model-index.

An evaluation file holds, by metric, ``agg_value`` and for most ``value_by_index``. What is read is context beside a
report's findings and is never judged. What is written has our measurements under names of our own, and under a
published name only what is computed by the published formula (:mod:`audit.stats.tofu`), here on the audited groups
alone: with every perturbed answer, and against a retrained model where the formula has one. Model utility is not
written: three of its nine parts are ROUGE of generated text, which no probe makes. Items are numbered: their ids may be
names. Source of the shape: github.com/locuslab/open-unlearning (Dorna et al. 2025, arXiv 2506.12618).
"""

import hashlib
import json
import math
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Final, NamedTuple

from pydantic import JsonValue

from audit.judging import taking_part
from audit.schema import AuditError, Measurement, Missing, Published, Rate, Report
from audit.storage import hashed_columns, refuse_special
from audit.wording import NAME, shown_name, visible

SAME: Final = {
    "forget_quality": ("forget_likelihood", "forget_quality", "forget_quality_p"),
    "forget_truth_ratio": ("forget_likelihood", "forget_quality", "truth_ratio_closer_to_1_better_suspect"),
    "retain_Q_A_Prob": ("utility", "retain", "tofu_probability_suspect"),
    "retain_Truth_Ratio": ("utility", "retain", "tofu_truth_ratio_suspect"),
}
"""Published names, and the probe, measurement and reading of ours that have the same formula."""
OF_PERTURBED: Final = ("forget_quality", "forget_truth_ratio", "retain_Truth_Ratio")
ALL_READ: Final = "every perturbed answer"
"""Said by a measurement that reads all of them; those of older reports read the first three."""
AGAINST_RETRAINED: Final = ("forget_quality", "privleak")
"""Their formula compares with a retrained model; an ancestor is another comparison."""
PUBLISHED_K: Final = "Min-K 40%"
"""The share of lowest tokens by which published logs measure privacy leakage."""
ABOUT: Final = (
    "Made from a Residua report. Published names have the published formula, on the audited groups only: all tokens of "
    "an answer (an end token that a loader appends is not one of them), every perturbed answer, the mean of their "
    "losses before the exponential. Names that begin with residua_ are our own, whatever they resemble: effects, 0 "
    "never trained and 1 base, unless the report says otherwise."
)
ENDINGS: Final = ("_EVAL.json", ".model-index.yml")


def read_published(path: Path, given: str) -> Published:
    """The aggregates of an evaluation file; ``given`` is how the case names it. AuditError (code 2) if it is none."""
    refuse_special(path, in_memory=True)
    try:
        data = path.read_bytes()
        document = json.loads(data)
    except OSError as error:
        raise AuditError(f"{path}: cannot be read ({error.strerror})", "correct `published` in the case file") from None
    except (ValueError, RecursionError) as error:
        raise AuditError(f"{path}: not JSON: {error}", "name an evaluation file (*_EVAL.json)") from None
    aggregates = {str(name): _number(entry) for name, entry in document.items()} if isinstance(document, dict) else {}
    values = {name: value for name, value in aggregates.items() if value is not None}
    if not values:
        raise AuditError(f"{path}: holds no metric with an `agg_value`", "name an evaluation file (*_EVAL.json)")
    unread = tuple(name for name, value in aggregates.items() if value is None)
    return Published(file=given, sha256=hashlib.sha256(data).hexdigest(), values=values, unread=unread)


def _number(entry: object) -> float | None:
    value = entry.get("agg_value") if isinstance(entry, dict) else None
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        number = float(value)
    except OverflowError:  # a whole number beyond all floats
        return None
    return number if math.isfinite(number) else None


def ours(report: Report) -> dict[str, float]:
    """What this report has under published names: the same formula, on the audited groups."""
    measured = {(e.measurement.probe, e.measurement.name): e.measurement for e in report.evidence}
    values: dict[str, float] = {}
    for published, (probe, name, reading) in SAME.items():
        m = measured.get((probe, name))
        if m is not None and reading in m.readings and (published not in OF_PERTURBED or _all_read(m)):
            values[published] = m.readings[reading]
    leak = measured.get(("forget_likelihood", "privacy_leakage"))
    if leak is not None and PUBLISHED_K in leak.statistic and not isinstance(leak.value, Missing):
        values["privleak"] = leak.value
    null = taking_part(report.plan.case, report.roles_audited).roles.null
    retrained = null is not None and null[0] == "reference"
    return {name: value for name, value in values.items() if retrained or name not in AGAINST_RETRAINED}


def _all_read(m: Measurement) -> bool:
    return any(ALL_READ in words for words in (m.statistic, *m.notes))


def evaluation(report: Report, folder: Path) -> str:
    """The report as an evaluation file, with the suspect's item scores from the tables in its run folder."""
    document: dict[str, JsonValue] = {name: {"agg_value": value} for name, value in ours(report).items()}
    for m in (e.measurement for e in report.evidence):
        if not isinstance(m.value, Missing):
            entry: dict[str, JsonValue] = {"agg_value": m.value}
            if scores := _scores(m, folder):
                entry["value_by_index"] = {str(n): {"score": score} for n, score in enumerate(scores)}
            document[f"residua_{m.probe}_{shown_name(m.probe, m.name)}"] = entry
        document |= {
            f"residua_finding_{m.probe}_{f.name}": {"agg_value": float(f.holds), **f.counts} for f in _asked(m)
        }
    document["residua_about"] = {"agg_value": None, "report_id": report.report_id, "text": ABOUT}
    return json.dumps(document, indent=2, sort_keys=True) + "\n"


class _Asked(NamedTuple):
    """A rule of yes or no that could be asked: its name as a key, its answer, both rates as counts."""

    name: str
    holds: bool
    counts: dict[str, JsonValue]


def _asked(m: Measurement) -> Iterator[_Asked]:
    for finding in m.findings:
        if isinstance(finding.holds, bool):
            rates = (("false_alarms", finding.false_alarms), ("hits", finding.hits))
            counts: dict[str, JsonValue] = {name: f"{r.k} of {r.n}" for name, r in rates if isinstance(r, Rate)}
            yield _Asked("_".join(visible(finding.name, NAME).split()), finding.holds, counts)


def _scores(m: Measurement, folder: Path) -> list[float]:
    """The suspect's score of every item in the table's order, averaged over layers; none without the issued table."""
    table = m.items
    columns = None if isinstance(table, Missing) else hashed_columns(folder / table.path, table.sha256)
    if columns is None or not {"item", "role", "score"} <= set(columns):
        return []
    by_item: dict[str, list[float]] = {}
    for item, role, score in zip(columns["item"], columns["role"], columns["score"], strict=True):
        if role == "suspect":
            by_item.setdefault(item, []).append(score)
    return [sum(scores) / len(scores) for scores in by_item.values()]


def model_index(report: Report) -> str:
    """A ``model-index`` block (YAML) for the model card of the suspect: the verdict and every judged measurement."""
    from huggingface_hub.repocard_data import EvalResult, eval_results_to_model_index
    from huggingface_hub.utils import yaml_dump

    forget, verdict = report.plan.data_sha256.get("forget", ""), report.verdict
    result = partial(
        EvalResult, task_type="text-generation", task_name="machine unlearning audit", dataset_type="forget-set",
        dataset_name=f"forget set, sha256 {forget[:12]}",
    )  # fmt: skip
    context = {"report_id": report.report_id, "basis": verdict.basis, "strength": verdict.strength}
    results = [
        result(metric_type="residua.verdict", metric_name="verdict", metric_value=verdict.word, metric_args=context)
    ]
    for e in report.evidence:
        m = e.measurement
        for f in _asked(m):
            metric = f"residua.finding.{m.probe}.{f.name}"
            results.append(result(metric_type=metric, metric_name=metric, metric_value=f.holds, metric_args=f.counts))
        if m.kind == "context" or m.mode == "paper" or isinstance(m.value, Missing):
            continue
        ends = {} if isinstance(m.ci95, Missing) else {"ci95_lo": m.ci95.lo, "ci95_hi": m.ci95.hi}
        args = {"outcome": e.outcome, "basis": e.basis, m.unit_of_replication: m.units, **ends}
        name = f"residua.{m.probe}.{m.name}"
        results.append(result(metric_type=name, metric_name=m.statistic, metric_value=m.value, metric_args=args))
    return yaml_dump({"model-index": eval_results_to_model_index(report.plan.case.name, results)}, sort_keys=False)


def foreign(report: Report, folder: Path, target: Path) -> str | None:
    """The report in the shape that a file's name asks for; None where it is none of these."""
    if target.name.endswith(ENDINGS[0]):
        return evaluation(report, folder)
    return model_index(report) if target.name.endswith(ENDINGS[1]) else None
