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


def told(value: Value | Missing, digits: int = 2) -> str:
    """A value and its interval."""
    if isinstance(value, Missing):
        return "–"
    return f"{number(value.value, digits)} [{number(value.ci95.lo, digits)}, {number(value.ci95.hi, digits)}]"


def table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def predictors(found: Results) -> str:
    """The validation table, strongest first."""
    rows = sorted(found.predictors, key=lambda row: -abs(row.spearman["all"].value))
    return table(
        ("predictor", "difficulty", "p", "steps", "reverse patch", "relearning", "cost", "partial", "p", "R2 gain"),
        [
            (
                row.name, told(row.spearman["all"]), number(row.p, 3),
                *(number(row.spearman[t].value) for t in ("steps", "patch", "relearn", "cost")), told(row.partial),
                "–" if isinstance(row.partial_p, Missing) else number(row.partial_p, 3), told(row.r2_gain, 3),
            )
            for row in rows
        ],
    )  # fmt: skip


def cud(found: Results) -> str:
    """CUD by the way it is made."""
    return table(
        ("CUD", "held-out method", "shuffled", "held-out seed", "R2 gain", "own labels", "own, shuffled"),
        [
            (WORDS[row.circuits, row.mode, row.part], told(row.other_methods), told(row.shuffled),
             told(row.other_seeds), told(row.r2_gain, 3), told(row.own), told(row.own_shuffled))
            for row in found.cud
        ],
    )  # fmt: skip


def named(title: str, values: dict[str, Value], digits: int = 2) -> str:
    """Values by name."""
    return table(
        (title, "value", "worlds that agree"), [(name, told(v, digits), str(v.agree)) for name, v in values.items()]
    )


def faithful(found: Results) -> str:
    """Share of the recall kept by each item's own n largest edges: median and middle half."""
    rows: list[tuple[str, ...]] = []
    for one in found.faithful:
        for at, n in enumerate(one.edges):
            kept = f"{number(one.median[at])} [{number(one.quarter[at])}, {number(one.three_quarters[at])}]"
            rows.append((one.model, f"{n} of {one.all_edges}", kept))
    return table(("model", "edges", "kept"), rows)


def reliability(found: Results) -> str:
    """How well difficulty agrees with itself."""
    columns = tuple(next(iter(found.reliability.values())))
    return table(("target", *columns), [(t, *map(told, by.values())) for t, by in found.reliability.items()])


def knockout(found: Knockout) -> str:
    """Places of models, a row a model and a column a world."""
    names = list(dict.fromkeys(one.model for one in found.models))
    by = {(one.model, one.world): one for one in found.models}

    def cell(name: str, world: int) -> str:
        one = by.get((name, world))
        return "–" if one is None else f"{number(one.place)} [{number(one.ci95.lo)}, {number(one.ci95.hi)}]"

    rows = [(name, *(cell(name, world) for world in found.worlds)) for name in names if name not in ("base", "null")]
    base = [by["base", world] for world in found.worlds]
    rows.append(("base, nats: forget (retained)", *(f"{b.forget_nats:.2f} ({b.retain_nats:.2f})" for b in base)))
    rows.append(("never knew, nats", *(f"{by['null', world].forget_nats:.2f}" for world in found.worlds)))
    return table(("model", *(f"world {world}" for world in found.worlds)), rows)


def markdown(found: Results, cut: Knockout) -> str:
    """Everything between the markers."""
    claims = {one.claim: one.value for one in found.claims}
    parts = (
        f"{len(found.worlds)} worlds, {found.items} items, {len(found.methods)} methods, {len(found.seeds)} seeds.",
        predictors(found), cud(found), named("the forecast, where it had not looked", found.forecast),
        named("the forecast, by held-out method", found.forecast_by_method), reliability(found),
        named("published claim (Spearman with difficulty)", claims),
        named("planted frequency: Spearman, then mean normal score", found.frequency),
        named("overlap of an item's circuits (gate: .6)", found.stability),
        named("completeness gap", found.completeness_gap, 3),
        named("ties to the forget set and damage of retained items", found.entangled), faithful(found), knockout(cut),
    )  # fmt: skip
    return "\n\n".join(parts)


def update() -> None:
    """Write the tables into the README."""
    found = Results.model_validate_json((HERE / "results.json").read_bytes())
    cut = Knockout.model_validate_json((HERE / "knockout.json").read_bytes())
    page = (HERE / "README.md").read_text(encoding="utf-8")
    before, _, rest = page.partition(BEGIN)
    after = rest.partition(END)[2]
    (HERE / "README.md").write_text(f"{before}{BEGIN}\n\n{markdown(found, cut)}\n\n{END}{after}", encoding="utf-8")


if __name__ == "__main__":
    update()
