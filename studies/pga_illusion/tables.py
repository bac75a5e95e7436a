"""The study's results as the tables of its page."""

from collections.abc import Mapping
from typing import Any

HEAD = (
    "| edit | refitted, edited texts | refitted, fresh texts | refitted, fresh, mean pooling | frozen, edited texts | "
    "sign-free on edited texts | controlled probe, fresh people | retained facts | perplexity |\n"
    "|---|---|---|---|---|---|---|---|---|"
)


def markdown(results: Mapping[str, Any]) -> str:
    """One table a subject and pairing."""
    parts: list[str] = []
    for subject, outcome in results["subjects"].items():
        for pairing in ("unrelated", "matched"):
            lines = [row(name, model, pairing) for name, model in ordered(outcome["models"], pairing)]
            parts += [f"**{subject}, {pairing} pairs**", "", HEAD, *lines, ""]
    return "\n".join(parts).strip()


def ordered(models: Mapping[str, Any], pairing: str) -> list[tuple[str, Any]]:
    """Base, the reference, and the edits that were fitted with this pairing."""
    edits = [(name, model) for name, model in models.items() if name.endswith(f", {pairing}")]
    return [("base", models["base"]), ("reference", models["reference"]), *edits]


def row(name: str, model: Mapping[str, Any], pairing: str) -> str:
    """One model: accuracies are means over depths with intervals over people."""
    shown = name.removesuffix(f", {pairing}")
    if "not_made" in model:
        return f"| {shown} | not made: nothing to remove at any depth |" + " – |" * 7
    read = model["readings"][pairing]
    free = read["edited"]["last"]["sign_free"]
    cells = [
        mean(read["edited"]["last"]["refitted"]), mean(read["fresh"]["last"]["refitted"]),
        mean(read["fresh"]["mean"]["refitted"]), number(read["edited"]["last"]["frozen"]["mean"]),
        f"{number(free['largest_distance_from_half'])}, p {free['p']:.2g}", controlled(model.get("controlled")),
        number(model["capability"]["probability_retained"]), f"{model['capability']['general_perplexity']:.1f}"
        if "general_perplexity" in model["capability"] else "–",
    ]  # fmt: skip
    return f"| {shown} | " + " | ".join(cells) + " |"


def number(value: float) -> str:
    """Two decimals without the nought before the point."""
    return f"{value:.2f}".replace("0.", ".", 1) if abs(value) < 1 else f"{value:.2f}"


def mean(read: Mapping[str, Any]) -> str:
    """An accuracy, mean over depths, its 95 % interval, and the lowest depth."""
    lo, hi = read["mean_ci95"]
    return f"{number(read['mean'])} [{number(lo)}, {number(hi)}], lowest {number(read['lowest'])}"


def controlled(reading: Mapping[str, Any] | None) -> str:
    """The controlled probe's effect, its p and what the case alone says."""
    if reading is None:
        return "–"
    value = reading["value"]
    if not isinstance(value, float):
        return f"none: {value}"
    return f"{number(value)}, p {reading['p']:.2g}, {reading['outcome']}"
