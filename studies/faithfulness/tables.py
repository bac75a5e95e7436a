"""The study's one table, in Markdown, from results.json and nothing else."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from scipy.stats import rankdata

from studies.faithfulness.contrasts import CONTRASTS, FAKES
from studies.faithfulness.metrics import COMPARED, METRICS, NOT_COMPUTED, PAPER, UDS, Metric, Published

HEAD = (
    "metric", "published", "learned it", "fakes", "fakes, less depth score", "everything", "fakes missed", "doses", "R",
    "Q", "overall", "people alarmed", "people missed",
)  # fmt: skip
PER_CELL = "published / one-sided / symmetric"
Row = Mapping[str, object]


class ResultParts(NamedTuple):
    """The parts of results.json that a metric's row is made from; empty where the part is not there."""

    contrasts: Mapping[str, Mapping[str, Row]]
    doses: Row
    mechanisms: Row
    robust: Row
    people: Row


def parts_of(results: Row) -> ResultParts:
    """What the results hold."""
    scores, attacks = _of(results, "scores"), _of(results, "attacks")
    contrasts = {key: _of(row, "metrics") for key, row in _of(scores, "contrasts").items() if isinstance(row, dict)}
    robust, people = (_of(_of(attacks, part), "metrics") for part in ("robustness", "people"))
    return ResultParts(contrasts, _of(scores, "doses"), _of(scores, "mechanisms"), robust, people)  # type: ignore[arg-type]


def _of(row: object, *keys: str) -> dict[str, object]:
    """A part of the results by its path; empty where it is not there."""
    for key in keys:
        row = row.get(key) if isinstance(row, dict) else None
    return row if isinstance(row, dict) else {}


def share(x: object) -> str:
    """A share with three decimals and no leading zero; a dash where there is none."""
    if not isinstance(x, int | float):
        return "–"
    text = f"{abs(x):.3f}".removeprefix("0")
    return f"−{text}" if x < 0 and float(f"{x:.3f}") else text


def between(row: Row, value: str) -> str:
    """A value with its interval."""
    if not isinstance(row.get(value), int | float):
        return "–"
    return f"{share(row[value])} [{share(row['lo'])}, {share(row['hi'])}]"


def tally(pair: object) -> str:
    """k/n."""
    return f"{pair[0]}/{pair[1]}" if isinstance(pair, list) else "–"


def _robust(parts: ResultParts, key: str, name: str, published: float | None) -> str:
    """Published, ours one-sided, ours symmetric; relearning of everybody, as published."""
    both = _of(parts.robust, key, "relearned")
    forms = [share(_of(both, form).get(name)) for form in ("one_sided", "symmetric")]
    shown = [share(published), *forms]
    counting, passing = (_of(both, "one_sided").get(n) for n in ("counting", "passing"))
    few = f" ({counting} of {passing} models)" if name == "r" and counting != passing else ""
    return "–" if set(shown) == {"–"} else " / ".join(shown) + few


def _missed(parts: ResultParts, key: str) -> str:
    """Each fake's models that the cut of the published convention does not find, of those that have a number."""
    rows = [_of(parts.mechanisms, key, "knowing", name) for name in FAKES]
    counts = [(int(str(row["of"])), int(str(row["above"]))) for row in rows if row]
    return ", ".join(f"{n - above}/{n}" for n, above in counts) or "–"


def row_of(parts: ResultParts, metric: Metric) -> list[str]:
    """One metric's cells, in the order of the head."""
    key, p = metric.key, metric.published
    learned, fakes, everything = (_of(parts.contrasts, c.key, key) for c in CONTRASTS)
    people = _of(parts.people, key)
    return [
        metric.words,
        share(p.faithful) if p else "–",
        _marked(learned),
        _marked(fakes),
        "–" if key == UDS else between(_of(fakes, "versus_depth_score"), "gap"),
        _marked(everything),
        _missed(parts, key),
        between(_of(parts.doses, key), "rho"),
        *(_robust(parts, key, name, getattr(p, by, None)) for name, by in (("r", "relearned"), ("q", "quantised"))),
        _robust(parts, key, "overall", p.overall if p else None),
        tally(people.get("false_positives")),
        tally(people.get("misses")),
    ]


def _marked(row: Row) -> str:
    """AUROC with interval, and how many models had no number."""
    absent = _of(row, "missing").get("models", 0)
    return between(row, "auc") + (f" ({absent} without)" if absent else "")


def _absent(words: str, p: Published) -> list[str]:
    robust = [f"{share(x)} / – / –" for x in (p.relearned, p.quantised, p.overall)]
    return [words, share(p.faithful), "not computed", *["–"] * 5, *robust, "–", "–"]


def markdown(results: Row) -> str:
    """The table: compared metrics, our own, and published ones that we do not compute; a line above says of what."""
    parts = parts_of(results)
    order = {metric.key: n for n, metric in enumerate(METRICS)}
    rows = [
        row_of(parts, metric)
        for metric in sorted(METRICS, key=lambda metric: (metric not in COMPARED, order[metric.key]))
    ]
    rows += [_absent(words, p) for words, p in NOT_COMPUTED.items()]
    lines = [_line(HEAD), _line(["---"] * len(HEAD)), *(_line(row) for row in rows)]
    source = f"Published: {PAPER}. R, Q and overall: {PER_CELL}."
    return "\n".join([_counts(results), "", *lines, "", source, agreement(parts)])


def agreement(parts: ResultParts) -> str:
    """Do our metrics stand in the published order? Spearman over those that both have, of every kind of figure."""
    ours: dict[str, dict[str, object]] = {}
    for metric in COMPARED:
        for contrast in CONTRASTS[1:]:
            auc = _of(parts.contrasts, contrast.key, metric.key).get("auc")
            ours.setdefault(contrast.key, {})[metric.key] = auc
        attacked = _of(parts.robust, metric.key, "relearned", "one_sided")
        for name in ("r", "q", "overall"):
            ours.setdefault(name, {})[metric.key] = attacked.get(name)
    by = {"r": ("R", "relearned"), "q": ("Q", "quantised"), "overall": ("overall", "overall")}
    shown: list[str] = []
    for kind, row in ours.items():
        word, figure = by.get(kind, (kind, "faithful"))
        shown.append(f"{word} {_ranked([(getattr(metric.published, figure), row[metric.key]) for metric in COMPARED])}")
    return f"Spearman with the published figures over the {len(COMPARED)} metrics that both have: {', '.join(shown)}."


def _ranked(pairs: Sequence[tuple[float, object]]) -> str:
    """Spearman's rho and over how many; a dash with fewer than three numbers, or where one side does not move."""
    known = [(p, x) for p, x in pairs if isinstance(x, int | float)]
    if len(known) < 3 or len({x for _, x in known}) == 1:
        return "–"
    ranks = [rankdata(side) for side in zip(*known, strict=True)]
    rho = share(float(np.corrcoef(ranks[0], ranks[1])[0, 1]))
    return rho if len(known) == len(pairs) else f"{rho} ({len(known)} of them)"


def _line(cells: list[str] | tuple[str, ...]) -> str:
    return f"| {' | '.join(cells)} |"


def _counts(results: Row) -> str:
    """How many worlds and models stand behind the table."""
    scores, attacks = _of(results, "scores"), _of(results, "attacks")
    first = _of(scores, "contrasts", "published", "metrics", UDS)
    second = _of(scores, "contrasts", "fakes", "metrics", UDS)
    worlds, full = scores.get("worlds"), _of(attacks, "robustness").get("worlds")
    text = f"{len(worlds) if isinstance(worlds, list) else 0} worlds, {scores.get('models', 0)} models. "
    text += f"Learned it: {first.get('knowing')} models against {first.get('clean')}; "
    text += f"fakes: {second.get('knowing')} against {second.get('clean')}. "
    if isinstance(full, list):
        text += f"R, Q and people: worlds {', '.join(map(str, full))}."
    return text.strip()
