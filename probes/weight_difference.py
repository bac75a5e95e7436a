"""Weight difference: what kind of edit was made, by the weights of two checkpoints alone."""

from collections.abc import Sequence
from math import isfinite, sqrt
from typing import ClassVar

from audit.probing import (
    SPIKE,
    AuditError,
    Bench,
    Case,
    Cost,
    Count,
    Difference,
    Listing,
    Measurement,
    Missing,
    Naming,
    Need,
    OpenCase,
    Probe,
    Requires,
    Unpaired,
    WeightEdit,
    blank,
    rank_of,
    suspect_descent,
    tokens_read,
    weight_edit,
)
from probes._edited import RankOneEdit, rank_one_edit

CHANGE = Naming(
    probe="weight_difference", name="change", kind="context",
    statistic="how far the suspect's weights lie from base's, in norms of base's weights (Frobenius, all parameters)",
    unit="of base's norm", scale="distance",
)  # fmt: skip
DESCRIBED = Missing(missing="a description of weights: nothing is tested")
NO_ITEMS = Missing(missing="weights have no items")
DESCRIPTIVE = (
    "Descriptive: a difference says what was done to the weights and not what the model knows. SUPPRESSED is a word of "
    "the tests that restore what was hidden, and never of this one."
)
EXACT = "With base's weights at hand the difference can be taken off again exactly, whatever it is."
ROUNDING = (
    "Of rank r: r directions explain all but what storing in the given type rounds off. A change of small steps in "
    "half precision differs in few entries because the others were rounded away, and reads sparse."
)
HOOKS = "The suspect is also edited by a hook, which no weight shows."
_SHOWN = 20


class WeightDifference(Probe):
    """What kind of edit separates the suspect's weights from base's?

    Both checkpoints are read parameter by parameter, side by side, without building a model: norms, entries that
    differ, and the largest singular values of every difference. Bias-only, head-only, sparse, rank-one, low-rank, last
    block and full changes are told apart by thresholds. Where the matrices through which MLPs write to the stream were
    each changed by one direction, that direction is matched with what the same matrix reads at every name of the case:
    the edited group is listed first, and one block or several adjacent ones about one group are a reversible rank-one
    redirect.

    Null: fine-tuned and LoRA children of models of known truth (studies/weight_difference); in a case the same edit at
    other tokens of its texts, against which a name must stand out.
    Positive control: rank-one edits planted into models of known truth.
    Blind to: hooks, system prompts and filters, which change no weight; whom an edit of many names, or of a model with
    experts, is about; whatever fine-tuning afterwards has covered. It never says that something is known or forgotten.
    Cite: Meng et al. 2022 (ROME, arXiv 2202.05262); Fang et al. 2024 (AlphaEdit, arXiv 2410.02355); Halko, Martinsson
    and Tropp 2011 (arXiv 0909.4061).
    """

    requires: ClassVar[Requires] = Requires(modalities=("text", "image", "image+text"), data=(), ops=())

    def needs(self, case: Case) -> tuple[Need, ...]:
        """None: files are read."""
        return ()

    def cost(self, case: OpenCase) -> Cost:
        """The reads by which the subject of a rank-one edit is told; nothing where there is no such edit."""
        return Cost(fwd_tokens=tokens_read(case) if case.modality == "text" else 0, kind="upper")

    def measure(self, bench: Bench, case: OpenCase) -> tuple[Measurement, ...]:
        """One description of the difference."""
        try:
            pairs = [_measurable(pair) for pair in bench.weight_differences(case.base, case.suspect)]
        except AuditError as error:
            return (blank(CHANGE, f"the weights cannot be compared: {error.what}", Count(scored=0), 0, case.case.seed),)
        compared = [pair for pair in pairs if not isinstance(pair, Unpaired)]
        unpaired = len(pairs) - len(compared)
        edit, descent = weight_edit(compared), suspect_descent(bench, case)
        about = rank_one_edit(bench, case, edit)
        notes = [f"kind of edit: {_told(edit)}", *about.notes, descent.sentence]
        notes += [EXACT, DESCRIPTIVE, ROUNDING] if edit.changed else []
        notes += [f"{unpaired} parameters stand in one of the two alone and are not compared"] if unpaired else []
        notes += [HOOKS] if any(record.is_hook for record in case.suspect.edits) else []
        n = Count(scored=len(compared), unscored=unpaired)
        return (
            blank(CHANGE, "", n, len(compared), case.case.seed).model_copy(
                update={
                    "value": _distance(compared), "unit_of_replication": "parameter", "ci95": DESCRIBED, "p": DESCRIBED,
                    "p_below": DESCRIBED, "null": DESCRIBED, "positive_control": DESCRIBED, "floor": DESCRIBED,
                    "items": NO_ITEMS, "readings": _readings(edit) | about.readings | descent.readings,
                    "listings": _listings(edit, about), "notes": tuple(notes),
                }
            ),
        )  # fmt: skip


def _measurable(pair: Difference | Unpaired) -> Difference | Unpaired:
    """The same. AuditError where its squares overflow: nothing can be said of such a distance."""
    if isinstance(pair, Difference) and not isfinite(pair.base_sq + pair.moved_sq):
        raise AuditError(f"the squares of {pair.name} overflow", "look at that tensor")
    return pair


def _distance(differences: Sequence[Difference]) -> float:
    """The norm of the difference over that of base."""
    base, moved = sum(d.base_sq for d in differences), sum(d.moved_sq for d in differences)
    return sqrt(moved / base) if base else 0.0


def _told(edit: WeightEdit) -> str:
    """The kind, with the numbers that it was read from."""
    changed, kind = edit.changed, edit.kind()
    if not changed:
        return "nothing differs"
    blocks = sorted({place.block for _, place in changed if place.part == "blocks" and place.block is not None})
    where = f"{len(changed)} of {len(edit.differences)} parameters differ"
    if blocks:
        where += f", in {len(blocks)} of {edit.blocks} blocks (first {blocks[0]}, last {blocks[-1]})"
    ranks = [rank for d, _ in changed if (rank := rank_of(d)) is not None]
    form = f"; of rank {max(ranks)} at most" if kind == "low-rank" else ""
    form = f"; one direction holds {SPIKE} or more of each" if kind == "rank-one" else form
    return f"{kind}; {where}{form}"


def _readings(edit: WeightEdit) -> dict[str, float]:
    """Distances by part, the parts' shares of the change, and what the changed matrices have in common."""
    total = sum(d.moved_sq for d in edit.differences)
    by_part: dict[str, list[Difference]] = {}
    for d, place in zip(edit.differences, edit.places, strict=True):
        for part in (place.part, *(() if len(d.shape) > 1 else ("norms_and_biases",)), *_expert(d)):
            by_part.setdefault(part.replace(" ", "_"), []).append(d)
    readings = {"entries_changed": _share(edit.differences), "parameters_changed": float(len(edit.changed))}
    for part, members in by_part.items():
        readings[f"distance_{part}"] = _distance(members)
        if total:
            readings[f"share_of_change_{part}"] = sum(d.moved_sq for d in members) / total
    matrices = [d for d, _ in edit.changed if d.spectrum is not None]
    if matrices:
        ranks = sorted(_stable_rank(d) for d in matrices)
        readings["stable_rank_least"], readings["stable_rank_median"] = ranks[0], ranks[len(ranks) // 2]
        readings["spikes"] = float(len(edit.spikes))
    return readings


def _expert(d: Difference) -> tuple[str, ...]:
    return () if d.expert is None else ("experts",)


def _share(differences: Sequence[Difference]) -> float:
    """The share of entries that differ."""
    return sum(d.changed for d in differences) / max(sum(d.entries for d in differences), 1)


def _stable_rank(d: Difference) -> float:
    """|D|^2 / sigma_1^2: at most the rank; from above where the largest singular value is a lower bound."""
    assert d.spectrum is not None
    return d.moved_sq / d.spectrum.values[0] ** 2


def _named(part: str, block: int | None) -> str:
    """A place in words."""
    return part if block is None else f"{'vision ' if part == 'vision tower' else ''}block {block}"


def _listings(edit: WeightEdit, about: RankOneEdit) -> tuple[Listing, ...]:
    """The parameters that changed most, and the groups that a rank-one edit fits."""
    order = sorted(edit.changed, key=lambda pair: -_distance([pair[0]]))
    columns = (
        "parameter", "place", "shape", "stored as", "change (of its norm)", "entries changed", "stable rank",
        "first direction", "rank",
    )  # fmt: skip
    rows = tuple(
        (
            d.name if d.expert is None else f"{d.name}[{d.expert}]",
            _named(*place), " x ".join(map(str, d.shape)), d.dtype,
            _distance([d]), d.changed / d.entries, None if d.spectrum is None else _stable_rank(d),
            None if d.spectrum is None else d.spectrum.spike, rank_of(d),
        )
        for d, place in order[:_SHOWN]
    )  # fmt: skip
    listed = Listing(title="parameters by the size of their change", columns=columns, rows=rows, of=len(order))
    return (*((listed,) if rows else ()), *about.listings)
