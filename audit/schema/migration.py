"""A report of an earlier minor version of the schema, brought to the present one as it is read.

Until 1.2 some facts stood in words alone: what became of a measurement in the sentence of its evidence, its scale in
its unit, the layer in the name of a reading, the axis of an item table nowhere. This module is the one place that still
reads those words. It changes no number, and leaves what it does not understand for the types to refuse.
"""

import re
from typing import Any, Final

EARLIER: Final = ("1.0", "1.1", "1.2")
"""The versions that are read and no longer written."""
Document = dict[str, Any]
AXES: Final = {
    "reverse_patch": "layer", "answer_lens": "layer", "cross_sequence": "site", "quantisation_recovery": "precision",
}  # fmt: skip
"""What the column ``layer`` of an item table held, by the probe that wrote it; other tables had one score a role."""
ATTACKS: Final = {
    "sampled generation and prompting": "generation", "optimised prompts and prefixes": "prefix",
    "relearning": "relearning", "quantisation": "quantisation", "pruning": "pruning",
}  # fmt: skip
"""The words by which earlier versions told the attacks of their coverage apart."""
_SCALES: Final = (
    (r"effect\b", "effect"), (r"ratio\b|share\b|.*relative to base", "ratio"), (r".*probability|AUROC", "probability"),
    (r".*distance", "distance"), (r".*difference|.*margin|lift\b", "difference"), (r"%", "percent"),
    (r"score\b", "score"),
)  # fmt: skip
_GATES: Final = {
    "gate passed": "gate_passed", "gate failed": "gate_failed", "gate not measured": "gate_unmeasured"
}  # fmt: skip


def migrated(document: Document) -> Document:
    """A document of an earlier version with what is a field now; any other document, and a broken one, as it is."""
    if document.get("schema_version") not in EARLIER:
        return document
    later = {key: value for key, value in document.items() if (key, value) != ("kind", "audit")}
    try:
        later["evidence"] = [_evidence(e) for e in document["evidence"]]
        later["excerpts"] = [_excerpts(x) for x in document.get("excerpts", ())]
        return {"attacks": [_attack(*row) for row in document["coverage"]], **later}
    except (AttributeError, LookupError, TypeError, ValueError, OverflowError):
        return document


# ---- evidence ---------------------------------------------------------------------------------------------------
def _evidence(old: Document) -> Document:
    return {"status": _status(old, old["measurement"]), **old, "measurement": _measurement(old["measurement"])}


def _status(evidence: Document, m: Document) -> str:
    because, outcome = evidence["because"], evidence["outcome"]
    if m["kind"] == "gate":
        return _GATES.get(because.partition(":")[0], "gate_unmeasured")
    in_case = evidence.get("basis", "in-case") == "in-case"
    if in_case and (m["kind"] in ("context", "recovery") or m.get("mode") == "paper"):
        return "listed"
    if evidence["direction"] == "below":
        return "below"
    if outcome in ("trace found", "no trace found"):
        return "trace" if outcome == "trace found" else "silent"
    if in_case and (_missing(m["value"]) or not m["positive_control"].get("found")):
        return "blind"
    if in_case and ": not above " in because:
        return "within_floor"
    return "hint" if in_case and ": a hint (p < " in because else "undecided"


# ---- measurements -----------------------------------------------------------------------------------------------
def _measurement(old: Document) -> Document:
    curves = [{"scale": _scale(curve["unit"]), **curve} for curve in old.get("curves", ())]
    later = {"scale": _scale(old["unit"]), "layer": _layer(old), **old, "curves": curves}
    if not _missing(old["items"]):
        later["items"] = {"axis": AXES.get(old["probe"], ""), **old["items"]}
    return later


def _missing(value: object) -> bool:
    return isinstance(value, dict) and "missing" in value


def _scale(unit: str) -> str:
    return next((scale for pattern, scale in _SCALES if re.match(pattern, unit)), "other")


def _layer(m: Document) -> int | None:
    """The layer that a reading states; else where the suspect's curve over layers has the value."""
    stated = next((value for name, value in m.get("readings", {}).items() if name.startswith("layer")), None)
    if stated is not None:
        return int(stated) if stated >= 0 else None
    over_layers = [c for c in m.get("curves", ()) if (c["role"], c["axis"]) == ("suspect", "layer") and c["x"]]
    if _missing(m["value"]) or not over_layers:
        return None
    points = zip(over_layers[0]["x"], over_layers[0]["y"], strict=True)
    return int(min(points, key=lambda point: abs(point[1] - m["value"]))[0])


# ---- what a whole report has ------------------------------------------------------------------------------------
def _excerpts(old: Document) -> Document:
    """The axis of the table that is quoted: that of the probe whose findings rest on it."""
    return {"axis": AXES.get(old["findings"][0].partition(".")[0], ""), **old}


def _attack(family: str, access: str, state: str) -> Document:
    """A row of the coverage as fields: how many measurements tested it stands in its last word."""
    number = re.search(r"[0-9]+", state)
    tested = 0 if state.startswith("not tested") else int(number[0]) if number else 1
    return {"family": family, "access": access, "attack": ATTACKS.get(family, ""), "measurements": tested}
