"""The tables of the README, from the committed results: nothing in them is typed."""

from collections.abc import Sequence
from pathlib import Path

from audit.schema import Missing
from studies.difficulty.knockout import Results as Knockout
from studies.difficulty.results import Results, Value

HERE = Path(__file__).parent
BEGIN, END = "<!-- the tables are written by the study -->", "<!-- end of the tables -->"
WORDS = {
    ("partner_0", "controlled", "cud"): "controlled (ours)", ("partner_0", "controlled", "margin"): "cosine margin",
    ("margin", "controlled", "cud"): "circuits of the logit margin", ("partner_0", "paper", "cud"): "leaky anchors",
    ("published", "controlled", "cud"): "published objective", ("paper", "paper", "cud"): "as published",
    ("paper", "controlled", "cud"): "published circuits, controlled",
}  # fmt: skip
"""What each way to make CUD is called, by circuits, anchors and part."""


def number(x: float, digits: int = 2) -> str:
    """Without the zero before the point, as the other studies print it."""
    return f"{x:.{digits}f}".replace("0.", ".", 1) if abs(x) < 1 else f"{x:.{digits}f}"


def interval(value: Value | Missing, digits: int = 2) -> str:
    """A value and its interval."""
    if isinstance(value, Missing):
        return "–"
    return f"{number(value.value, digits)} [{number(value.ci95.lo, digits)}, {number(value.ci95.hi, digits)}]"


def table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def predictors(results: Results) -> str:
    """The validation table, strongest first."""
    rows = sorted(results.predictors, key=lambda row: -abs(row.spearman["all"].value))
    return table(
        ("predictor", "difficulty", "p", "steps", "reverse patch", "relearning", "cost", "partial", "p", "R2 gain"),
        [
            (
                row.name, interval(row.spearman["all"]), number(row.p, 3),
                *(number(row.spearman[t].value) for t in ("steps", "patch", "relearn", "cost")), interval(row.partial),
                "–" if isinstance(row.partial_p, Missing) else number(row.partial_p, 3), interval(row.r2_gain, 3),
            )
            for row in rows
        ],
    )  # fmt: skip


def cud(results: Results) -> str:
    """CUD by the way it is made."""
    return table(
        ("CUD", "held-out method", "shuffled", "held-out seed", "R2 gain", "own labels", "own, shuffled"),
        [
            (WORDS[row.circuits, row.mode, row.part], interval(row.other_methods), interval(row.shuffled),
             interval(row.other_seeds), interval(row.r2_gain, 3), interval(row.own), interval(row.own_shuffled))
            for row in results.cud
        ],
    )  # fmt: skip


def value_table(title: str, values: dict[str, Value], digits: int = 2) -> str:
    """Values by name."""
    return table(
        (title, "value", "worlds that agree"), [(name, interval(v, digits), str(v.agree)) for name, v in values.items()]
    )


def faithful(results: Results) -> str:
    """Share of the recall kept by each item's own n largest edges: median and middle half."""
    rows: list[tuple[str, ...]] = []
    for curve in results.faithful:
        for at, n in enumerate(curve.edges):
            share = f"{number(curve.median[at])} [{number(curve.quarter[at])}, {number(curve.three_quarters[at])}]"
            rows.append((curve.model, f"{n} of {curve.all_edges}", share))
    return table(("model", "edges", "kept"), rows)


def reliability(results: Results) -> str:
    """How well difficulty agrees with itself."""
    columns = tuple(next(iter(results.reliability.values())))
    return table(("target", *columns), [(t, *map(interval, by.values())) for t, by in results.reliability.items()])


def knockout(cut: Knockout) -> str:
    """Places of models, a row a model and a column a world."""
    names = list(dict.fromkeys(row.model for row in cut.models))
    by = {(row.model, row.world): row for row in cut.models}

    def cell(name: str, world: int) -> str:
        row = by.get((name, world))
        return "–" if row is None else f"{number(row.place)} [{number(row.ci95.lo)}, {number(row.ci95.hi)}]"

    rows = [(name, *(cell(name, world) for world in cut.worlds)) for name in names if name not in ("base", "null")]
    base = [by["base", world] for world in cut.worlds]
    rows.append(("base, nats: forget (retained)", *(f"{b.forget_nats:.2f} ({b.retain_nats:.2f})" for b in base)))
    rows.append(("never knew, nats", *(f"{by['null', world].forget_nats:.2f}" for world in cut.worlds)))
    return table(("model", *(f"world {world}" for world in cut.worlds)), rows)


def markdown(results: Results, cut: Knockout) -> str:
    """Everything between the markers."""
    claims = {claim.claim: claim.value for claim in results.claims}
    parts = (
        f"{len(results.worlds)} worlds, {results.items} items, {len(results.methods)} methods, "
        f"{len(results.seeds)} seeds.",
        predictors(results), cud(results), value_table("the forecast, where it had not looked", results.forecast),
        value_table("the forecast, by held-out method", results.forecast_by_method), reliability(results),
        value_table("published claim (Spearman with difficulty)", claims),
        value_table("planted frequency: Spearman, then mean normal score", results.frequency),
        value_table("overlap of an item's circuits (gate: .6)", results.stability),
        value_table("completeness gap", results.completeness_gap, 3),
        value_table("ties to the forget set and damage of retained items", results.entangled), faithful(results),
        knockout(cut),
    )  # fmt: skip
    return "\n\n".join(parts)


def update() -> None:
    """Write the tables into the README."""
    results = Results.model_validate_json((HERE / "results.json").read_bytes())
    cut = Knockout.model_validate_json((HERE / "knockout.json").read_bytes())
    page = (HERE / "README.md").read_text(encoding="utf-8")
    before, _, rest = page.partition(BEGIN)
    after = rest.partition(END)[2]
    (HERE / "README.md").write_text(f"{before}{BEGIN}\n\n{markdown(results, cut)}\n\n{END}{after}", encoding="utf-8")


if __name__ == "__main__":
    update()
