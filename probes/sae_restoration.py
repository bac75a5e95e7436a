"""Restoration: does base's code for the forgotten answers live on in the suspect, or only in what reads it?"""

from typing import ClassVar, NamedTuple

import numpy as np

from audit.probing import (
    EFFECT_UNIT,
    Bench,
    Case,
    CaseModels,
    Cohort,
    Cost,
    Count,
    Design,
    GroupTest,
    Measurement,
    Missing,
    Naming,
    Need,
    Op,
    OpenCase,
    PersonRows,
    Probe,
    Requires,
    Texts,
    assess,
    blank,
    by_person,
    case_models_of,
    group_test,
    item_table,
    n_blocks,
    panel_of,
    person_rows_of,
    stacked,
)
from probes._decision import Finding
from probes._dictionary import Wanted, dictionary, fits
from probes._donor_measurements import LEAST_GAP, NULL_SETS, decision_table, donor_restoration, published_restoration
from probes._few_shot import Lesson, by_shots, last_states
from probes._restoration import FORGET, RETAIN, Scene

ONE_REFERENCE = (
    "how well a fresh head learns such answers differs between models that never knew, and there is no second one to "
    "say by how much"
)
ALPHAS = (1.0, 5.0, 10.0)
"""Strengths of the published injection."""
SHOTS = (5, 20, 100)
"""Shots an answer."""
HOLDOUT = Texts(cohort="holdout")
REVERSE = Naming(
    probe="sae_restoration", name="dictionary_reverse", kind="causal",
    statistic="effect on the probability of the answers when base reads its own state with its dictionary's features "
    "as they are in the suspect",
    unit=EFFECT_UNIT, scale="effect",
)  # fmt: skip
FEW_SHOT = Naming(
    probe="sae_restoration", name="few_shot_readout", kind="context",
    statistic="largest effect over numbers of shots on how often a fresh head, fitted to the suspect's own last "
    "states, gives the answer",
    unit=EFFECT_UNIT, scale="effect",
)  # fmt: skip


class _Tested(NamedTuple):
    """A filled measurement and what the decision table asks of it."""

    measurement: Measurement
    finding: Finding


class SaeRestoration(Probe):
    """Is what was forgotten suppressed or deleted, by the features of base's dictionary in the suspect's states?

    A TopK dictionary of base's states after one block (``layer``; -1: three quarters up) is read from ``dictionary``
    or, where that names none, trained. **Reverse** (may be evidence): base goes on from its own states with all
    features set to what they are in the suspect; what the dictionary does not describe stays base's. **Few-shot
    read-out**: a fresh linear head on a few of the model's own last states per answer, on rows that it did not see.
    Models that never knew learn more or less from the shots than each other, on all rows alike, so that no test over
    people says how often it would be wrong: it enters the table alone, beyond what two such models differ by. **Donor
    restoration**: the suspect goes on from its own states with the features that speak for the answer (by F1, chosen
    on other groups) set to base's, against random features of the same rate and size, the wrong answers' features,
    shuffled donors, swaps and amplifications. The **published** injection stands beside it as it is, with what an
    empty set, random sets and the swap of the answer's own state do by themselves. The decision table says what they
    mean together.

    Null: the first reference, else the ancestor; p permutes forget/holdout labels over people, without holdout people
    it flips the signs of people's differences; of donor restoration, matched random sets.
    Positive control: base in the suspect's place.
    Blind to: a suspect whose states base's dictionary does not describe (less than .9 of the variance that it explains
    in base): it is not judged; answers that occur once; what the dictionary leaves out.
    Cite: Suppression or Deletion, arXiv 2602.18505 (published mode; its public code swaps the answer's own state, which
    is what restores); controls and decision table are ours.
    """

    requires: ClassVar[Requires] = Requires(
        roles=("base", "suspect"), modalities=("text", "image"), data=("forget", "retain"),
        ops=(Op.READ, Op.WRITE, Op.RESUME),
    )  # fmt: skip
    dictionary: str = ""
    layer: int = -1
    per_width: int = 4
    k: int = 0
    rows: int = 60_000
    sets: int = 200
    paper_sets: int = 20
    own_gain: float = 5.0
    fits: int = 20
    permutations: int = 9999

    def needs(self, case: Case) -> tuple[Need, ...]:
        """None ahead of time: the block depends on base, see :meth:`cost`."""
        return ()

    def cost(self, case: OpenCase) -> Cost:
        """Forget rows once a set and intervention, for the suspect and the null, and all rows a few times a model: an
        upper bound, since most runs begin above the edited block."""
        forget, retain = (int(case.rows(texts).mask.sum()) for texts in (FORGET, RETAIN))
        runs = self.sets + NULL_SETS + 2 * len(ALPHAS) * (self.paper_sets + 4) + 30
        models = len(case_models_of(case).by_name())
        tokens = (runs + n_blocks(case) + 4 * models) * forget + (10 + 4 * models) * retain
        return Cost(fwd_tokens=tokens, resident=2, kind="upper")

    def groups_tested(self, case: OpenCase) -> GroupTest:
        """Labels over forget and holdout people; without holdout people the signs of people's differences."""
        return group_test(case, self.permutations)

    def _block(self, case: OpenCase) -> int:
        """The block after which states are edited: at least one comes after it where there are two."""
        blocks = n_blocks(case)
        return min(round(0.75 * blocks), max(blocks - 2, 0)) if self.layer < 0 else min(self.layer, blocks - 1)

    def measure(self, bench: Bench, case: OpenCase) -> tuple[Measurement, ...]:
        """Reverse, read-out, donor restoration, the published injection, and the table."""
        cast, layer = case_models_of(case), self._block(case)
        wanted = Wanted(self.dictionary, layer, self.per_width, self.k, self.rows)
        coder = dictionary(bench, case, wanted, (FORGET, RETAIN, Texts(cohort="general")))
        scene = Scene(bench, case, cast, layer, coder)
        reverse, readout = self._reverse(scene), self._few_shot(scene)
        return (
            reverse,
            readout.measurement,
            donor_restoration(scene, self.sets, self.own_gain),
            published_restoration(scene, ALPHAS, self.paper_sets, self.sets),
            decision_table(scene, readout.finding, self.permutations),
        )

    def _design(self, case: OpenCase, cast: CaseModels, naming: Naming, holdout: bool) -> Design:
        return Design(
            case.case.seed, LEAST_GAP, differenced=cast.null is None and holdout, draws=self.permutations,
            name=naming.key,
        )  # fmt: skip

    # ---- what may be evidence -----------------------------------------------------------------------------------
    def _reverse(self, scene: Scene) -> Measurement:
        """Base reads its own states with the features of another model."""
        case, cast = scene.case, scene.cast
        valid = fits(scene.coder, *(scene.described(name, scene.retain.rows) for name in ("base", "suspect")))
        forget = {name: scene.reversed_by(name, scene.sheet.rows)[:, None] for name in scene.models}
        scored = by_person(scene.sheet, forget)
        held = None
        if case.has(HOLDOUT):
            sheet = person_rows_of(case, HOLDOUT)
            held = by_person(sheet, {name: scene.reversed_by(name, sheet.rows)[:, None] for name in scene.models})
        readings = {
            "fve_base": valid.base.fve, "fve_suspect": valid.other.fve, "l0_suspect": valid.other.l0,
            "dead_in_suspect": float(valid.other.dead),
            **{f"probability_{name}": float(x.mean()) for name, x in scored.people.items()},
        }  # fmt: skip
        empty = blank(REVERSE, f"the dictionary is not valid on the suspect: {valid.because}", scored.n,
                      len(scored.people["suspect"]), case.case.seed)  # fmt: skip
        roles = {name: cast.role(name) for name in forget}
        table = item_table(case, "sae_restoration_dictionary_reverse", scene.sheet, forget, roles)
        empty = empty.model_copy(
            update={"layer": scene.layer, "readings": readings, "notes": (scene.label,), "items": table}
        )
        panel, design = panel_of(scored, held), self._design(case, cast, REVERSE, held is not None)
        if not valid.valid:
            control = assess(panel._replace(suspect=panel.base, floors=()), design._replace(name="")).control
            return empty.model_copy(update={"positive_control": control})
        return assess(panel, design).onto(empty)

    def _few_shot(self, scene: Scene) -> _Tested:
        """A fresh head on the model's own last states."""
        case, cast = scene.case, scene.cast
        parts = [scene.forget.rows, scene.retain.rows]
        kinds, folds = [scene.forget.kind, scene.retain.kind], [scene.forget.fold, scene.retain.fold]
        sheets: dict[Cohort, PersonRows] = {"forget": scene.sheet}
        if case.has(HOLDOUT):
            sheets["holdout"] = person_rows_of(case, HOLDOUT)
            parts.append(sheets["holdout"].rows)
            kinds.append(scene.kinds_of(sheets["holdout"].rows))
            folds.append(np.full(len(sheets["holdout"].rows), 2))
        rows, n, known = stacked(parts), len(scene.forget.rows), len(scene.forget.rows) + len(scene.retain.rows)
        place = np.arange(len(rows))
        lesson = Lesson(np.concatenate(kinds), np.concatenate(folds), place < known, (place < n) | (place >= known))
        states = {name: last_states(scene.bench, model, rows) for name, model in scene.models.items()}
        counts, rates = by_shots(states, lesson, SHOTS, self.fits, case.case.seed)
        if not counts:
            reason = f"no answer is in {min(SHOTS)} rows outside a half of the groups, for most of the facts"
            empty = blank(FEW_SHOT, reason, Count(scored=0, unscored=n), 0, case.case.seed)
            return _Tested(empty, Finding.absent(reason))
        scored = by_person(scene.sheet, {name: x[:n] for name, x in rates.items()})
        if not scored.groups:
            reason = f"nobody has facts that can be read with {', '.join(map(str, counts))} shots each"
            return _Tested(blank(FEW_SHOT, reason, scored.n, 0, case.case.seed), Finding.absent(reason))
        held = None
        if "holdout" in sheets:
            held = by_person(sheets["holdout"], {name: x[known:] for name, x in rates.items()})
            held = held if held.groups else None
        reason = "" if cast.floors or cast.null is None else ONE_REFERENCE
        empty = blank(FEW_SHOT, reason, scored.n, len(scored.people["suspect"]), case.case.seed)
        assessed = assess(panel_of(scored, held), self._design(case, cast, FEW_SHOT, held is not None))
        readings = {
            f"hit_rate_{name}_{count}_shots": float(x[:, i].mean())
            for name, x in scored.people.items()
            for i, count in enumerate(counts)
        }
        roles = {name: cast.role(name) for name in rates}
        table = item_table(
            case, "sae_restoration_few_shot", scene.sheet, {name: x[:n] for name, x in rates.items()}, roles, "shots"
        )
        filled = empty if reason else _either_way(assessed.onto(empty))
        columns = f"columns are {', '.join(map(str, counts))} shots an answer, {self.fits} fits of each"
        filled = filled.model_copy(
            update={"items": table, "readings": readings | filled.readings, "notes": (columns, *filled.notes)}
        )
        if reason:
            return _Tested(filled, Finding.absent(reason))
        if isinstance(assessed.control, Missing) or not assessed.control.found:
            return _Tested(filled, Finding.absent("a fresh head does not read base beyond a model that never knew"))
        return _Tested(filled, _beyond(filled))


def _either_way(effect: Measurement) -> Measurement:
    """The floor by size: which of two models that never knew learns more from the shots is chance."""
    floor = effect.floor
    return effect if isinstance(floor, Missing) else effect.model_copy(update={"floor": abs(floor)})


def _beyond(effect: Measurement) -> Finding:
    """An effect whose interval has to clear what two models that never knew differ by."""
    if isinstance(effect.ci95, Missing) or isinstance(effect.floor, Missing):
        return Finding(effect.value, effect.ci95)
    return Finding(effect.value, effect.ci95.model_copy(update={"lo": effect.ci95.lo - effect.floor}))
