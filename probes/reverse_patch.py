"""Reverse patching: base's later blocks read the suspect's states, layer by layer."""

from collections.abc import Mapping
from typing import ClassVar, NamedTuple

import numpy as np
from jaxtyping import Bool, Float
from numpy import ndarray

from audit.probing import (
    EFFECT_UNIT,
    KEY_LOGPROB,
    Bench,
    Case,
    CaseModels,
    Checkpoint,
    Cohort,
    Control,
    Cost,
    Curve,
    Design,
    Form,
    GroupTest,
    Measurement,
    Missing,
    ModelScores,
    Naming,
    Need,
    Op,
    OpenCase,
    Panel,
    Probe,
    Requires,
    Texts,
    assess,
    base_gap,
    blank,
    by_person,
    case_models_of,
    group_test,
    item_table,
    key_logprob,
    n_places,
    panel_of,
    person_rows_of,
)
from probes._depth_score import depth_score
from probes._profiles import Mode, Reading, curve, mismatched, profile, share
from probes._taught import Lessons, lesson_tokens, taught_reader

GATE = 0.5
LEAST_GAP = 0.3
MOST_SEEN = 0.1
"""Of pictures a layer is read only where base reads at most this share of its own from models that never knew."""
WEAKER = (
    "No model that never knew was given: the null is base itself with another person's states at the answer positions. "
    "It does not show what base recomputes from a never-trained state, so only the last layer counts, which the head "
    "reads and after which nothing is recomputed."
)
TAUGHT = (
    "No model that never knew was given: the reader is base taught the holdout people, and the null is what it reads "
    "of these, whom no model learned, from the suspect's own states. This can show a trace, never that there is none."
)
LEAST_LEARNED = 0.8


class _Gate(NamedTuple):
    """Can base read the suspect's states at all? Retained facts, layer by layer."""

    curve: Curve
    passed: ndarray
    best: float


class _Task(NamedTuple):
    """One depth profile to be judged."""

    mode: Mode
    form: Form
    primary: bool
    gate: _Gate
    notes: tuple[str, ...] = ()
    taught: bool = False

    def naming(self) -> Naming:
        """What the measurement of this profile is called."""
        name = f"{'taught_reader' if self.taught else 'depth_profile'}_{self.mode}"
        reader = "base taught the holdout people" if self.taught else "base"
        return Naming(
            probe="reverse_patch", name=name if self.form == "trained" else f"{name}_{self.form}",
            kind="causal" if self.primary else "context", form=self.form,
            statistic=f"largest effect over eligible layers: suspect's states ({self.mode}) read by {reader}, "
            f"{self.form.replace('_', ' ')} rows",
            unit=EFFECT_UNIT, scale="effect",
        )  # fmt: skip


class _Target(NamedTuple):
    """Which texts are read, and in which mode."""

    texts: Texts
    mode: Mode


class _Read(NamedTuple):
    """Forget people as they were read, and holdout people: the null, or what the test compares with."""

    forget: Reading
    holdout: Reading | None = None


class ReversePatch(Probe):
    """At which depth can the model that knew still read the forgotten facts from the suspect's own states?

    The suspect's residual state after a layer is read by base's later blocks, and the probability of the content
    tokens is taken: ``all`` resumes base from the suspect's whole state, ``answer`` puts only the positions that
    predict content tokens into base's own run. Both are computed, ``primary`` says which may enter a verdict. At
    shallow layers the state still is the input and base recomputes the answer itself, so that the effect is
    (suspect - null)/(base - null) at the same layer; the statistic is the largest effect over the eligible layers.
    A layer is eligible where base reads the suspect's states of retained facts (at least half of its own reading, in
    the same mode) and exceeds the null by .3; of questions about pictures, where it reads at most a tenth from any
    model that never knew, for it sees in the picture by itself what these merely hand on.

    Of questions about pictures, ``all`` also hands over the states after each vision block that is on the way to the
    language model, and what the projector gives; the depth score is then computed over these layers too.

    Null: the first reference, else the ancestor, read in the same way; p permutes forget/holdout labels over people on
    the difference between suspect and null (the largest over the eligible layers), which what base reads more of
    everybody's states cannot move; without holdout people it flips the signs of people's differences. Without a model
    that never knew, holdout people: the reader is then base taught the holdout people, the null what it reads of them
    from the suspect's states; this shows traces only. Without those too, base with another person's states at the
    answer positions, on the last layer only, with weaker wording.
    Positive control: the same statistic with base in the suspect's place; base reads its own states unchanged.
    Blind to: knowledge re-encoded so that base's blocks cannot read it; a suspect that shares no basis with base is
    stopped by the compatibility gate and never judged.
    Cite: Unlearning Depth Score, arXiv 2605.24614 (the published score is computed as well, with states taken before
    the final norm, where the public code mixes the two at the last layer); Patchscopes, arXiv 2401.06102.
    """

    requires: ClassVar[Requires] = Requires(
        roles=("base", "suspect"),
        modalities=("text", "image", "image+text"),
        data=("forget", "retain"),
        ops=(Op.READ, Op.WRITE, Op.RESUME),
    )
    version: ClassVar[int] = 3
    primary: Mode = "all"
    permutations: int = 9999
    tau_nats: float = 0.05
    reader_steps: int = 100
    reader_batch: int = 64

    def needs(self, case: Case) -> tuple[Need, ...]:
        """Base's own outputs; everything else is patched and priced by :meth:`cost`."""
        cohorts = ("forget", "retain")
        return tuple(Need(role="base", texts=Texts(cohort=c), reads=(KEY_LOGPROB,)) for c in cohorts)

    def cost(self, case: OpenCase) -> Cost:
        """Every source once, and base once per source, mode and layer: an upper bound, since base resumes midway."""
        forget = int(case.rows(Texts(cohort="forget")).mask.sum())
        retain = int(case.rows(Texts(cohort="retain")).mask.sum())
        held_out = [Texts(cohort="forget", form=form) for form in case.forms("held_out")]
        other = sum(int(case.rows(t).mask.sum()) for t in held_out if case.has(t))
        sources = max(len(case_models_of(case).by_name()) - 1, 2)
        held = sum(int(case.rows(t).mask.sum()) for t in _texts(case, "holdout") if case.has(t))
        tokens = (1 + n_places(case)) * (sources * (2 * (forget + held) + other) + 2 * retain)
        if case.null is not None or not held:
            return Cost(fwd_tokens=tokens, resident=2, kind="upper")
        taught = lesson_tokens(case, self._lessons(case))
        tokens += forget + taught
        return Cost(fwd_tokens=tokens, bwd_tokens=taught, steps=self.reader_steps, resident=3, kind="upper")

    def groups_tested(self, case: OpenCase) -> GroupTest:
        """Labels over forget and holdout people; without holdout people the signs of people's differences."""
        return group_test(case, self.permutations, forms=True)

    def measure(self, bench: Bench, case: OpenCase) -> tuple[Measurement, ...]:
        """The depth profile in the primary mode (forms apart), in the other mode, and the published score."""
        cast, notes = case_models_of(case), ()
        if cast.null is not None:
            return self._by_base(bench, case, cast, [self.primary, _other(self.primary)])
        if case.has(Texts(cohort="holdout")) and Op.TRAIN in bench.supports:
            reader = taught_reader(bench, case, self._lessons(case))
            learned = {c: _recalled(bench, reader, case, Texts(cohort=c)) for c in ("forget", "holdout")}
            if learned["holdout"] >= LEAST_LEARNED * learned["forget"]:
                return self._by_taught(bench, case, cast._replace(base=reader), learned)
            notes = (f"A reader was taught the holdout people and learned too little: it recalls {learned}.",)
        return self._by_base(bench, case, cast, ["answer"], notes=(WEAKER, *notes))

    def _lessons(self, case: OpenCase) -> Lessons:
        return Lessons(self.reader_steps, self.reader_batch, case.case.seed)

    def _by_base(
        self, bench: Bench, case: OpenCase, cast: CaseModels, modes: list[Mode], notes: tuple[str, ...] = ()
    ) -> tuple[Measurement, ...]:
        """Base reads. The first mode is the primary one."""
        measurements: list[Measurement] = []
        for mode in modes:
            gate = self._gate(bench, case, cast, mode)
            for texts in _texts(case, "forget")[: None if mode == modes[0] else 1]:
                if not case.has(texts):
                    continue
                reading = self._read(bench, case, cast, _Target(texts, mode))
                others = texts.model_copy(update={"cohort": "holdout"})
                holdout = None
                if cast.null is not None and case.has(others):
                    holdout = self._read(bench, case, cast, _Target(others, mode))
                task = _Task(mode, texts.form, mode == modes[0], gate, notes)
                measurements.append(self._judged(case, cast, _Read(reading, holdout), task))
                across = mode == "all" and bool(reading.places)
                if (mode == "answer" or across) and texts.form == "trained" and cast.null is not None:
                    measurements.append(depth_score(reading, self.tau_nats, case.case.seed))
        return tuple(measurements)

    def _by_taught(
        self, bench: Bench, case: OpenCase, cast: CaseModels, learned: Mapping[str, float]
    ) -> tuple[Measurement, ...]:
        """The taught reader, in the cast in base's place, reads the suspect's and base's states on both cohorts."""
        sources = {"suspect": cast.suspect, "base": case.checkpoint("base")}
        known = {f"reader_recalls_{cohort}": share for cohort, share in learned.items()}
        measurements: list[Measurement] = []
        for mode in (self.primary, _other(self.primary)):
            gate = self._gate(bench, case, cast, mode)
            pairs = list(zip(_texts(case, "forget"), _texts(case, "holdout"), strict=True))
            for pair in pairs[: None if mode == self.primary else 1]:
                if not all(map(case.has, pair)):
                    continue
                forget, holdout = (
                    profile(bench, cast.base, sources, person_rows_of(case, texts), mode, own="reader").without(
                        "reader"
                    )
                    for texts in pair
                )
                task = _Task(mode, pair[0].form, mode == self.primary, gate, (TAUGHT,), taught=True)
                judged = self._judged(case, cast, _Read(forget, holdout), task)
                measurements.append(judged.model_copy(update={"readings": judged.readings | known}))
        return tuple(measurements)

    def _read(self, bench: Bench, case: OpenCase, cast: CaseModels, target: _Target) -> Reading:
        sources = {name: c for name, c in cast.by_name().items() if name != "base"}
        reading = profile(bench, cast.base, sources, person_rows_of(case, target.texts), target.mode)
        if cast.null is not None:
            return reading
        return reading._replace(logprob={**reading.logprob, "null": mismatched(bench, cast.base, reading.sheet)})

    def _gate(self, bench: Bench, case: OpenCase, cast: CaseModels, mode: Mode) -> _Gate:
        """Retained facts: the suspect's states read by base, relative to base's own."""
        reading = profile(
            bench, cast.base, {"suspect": cast.suspect}, person_rows_of(case, Texts(cohort="retain")), mode
        )
        people = by_person(reading.sheet, reading.probability()).people
        retained = people["suspect"].mean(0) / np.maximum(people["base"].mean(0), 1e-12)
        return _Gate(share(people["suspect"], people["base"], case.case.seed), retained >= GATE, float(retained.max()))

    def _judged(self, case: OpenCase, cast: CaseModels, read: _Read, task: _Task) -> Measurement:
        """One profile as an effect over its eligible layers."""
        scores, seed = read.forget.probability(), case.case.seed
        scored = by_person(read.forget.sheet, scores)
        held = None if read.holdout is None else by_person(read.holdout.sheet, read.holdout.probability())
        panel = panel_of(scored, held)
        design = Design(seed, LEAST_GAP, differenced=task.taught, draws=self.permutations, name=task.naming().key)
        gap, naming = base_gap(panel, design), task.naming()
        counts = np.arange(len(gap)) >= (len(gap) - 1 if cast.null is None and not task.taught else 0)
        if case.modality == "image+text" and cast.null is not None:
            counts &= _unread(panel)
        eligible = np.flatnonzero(counts & task.gate.passed & (gap >= LEAST_GAP))
        roles = {model: cast.role(model) for model in scores}
        reason, people = _why_not(gap, task.gate, counts), len(scored.people["suspect"])
        filled = blank(naming, reason, scored.n, people, seed).model_copy(
            update={
                "curves": (*_curves(scored, held if task.taught else None, cast, seed), task.gate.curve),
                "items": item_table(case, f"reverse_patch_{naming.name}", read.forget.sheet, scores, roles, "layer"),
                "notes": (_layers(eligible), *filter(None, (read.forget.places,)), *task.notes),
            }
        )
        if not len(eligible):
            return filled.model_copy(update={"positive_control": _control(panel, design)})
        assessed = assess(panel.at(eligible), design)
        readings = {f"effect_layer{layer}": e for layer, e in zip(eligible.tolist(), assessed.effects, strict=True)}
        layer = int(eligible[assessed.layer]) if assessed.layer >= 0 else None
        best = {} if layer is None else {"layer_of_largest_effect": float(layer)}
        return assessed.onto(filled).model_copy(
            update={"layer": layer, "readings": readings | best | assessed.readings}
        )


def _texts(case: OpenCase, cohort: Cohort) -> list[Texts]:
    """The trained rows of a cohort, then those of each held-out form."""
    return [Texts(cohort=cohort, form=form) for form in ("trained", *case.forms("held_out"))]


def _other(mode: Mode) -> Mode:
    return "all" if mode == "answer" else "answer"


def _recalled(bench: Bench, reader: Checkpoint, case: OpenCase, texts: Texts) -> float:
    """Mean item probability of the content tokens in the reader's own output."""
    return float(np.nanmean(np.exp(key_logprob(bench, reader, case.rows(texts)))))


def _layers(eligible: ndarray) -> str:
    return "eligible layers: " + (", ".join(str(layer) for layer in eligible) if len(eligible) else "none")


def _unread(panel: Panel) -> Bool[ndarray, " layer"]:
    """The layers from which base reads next to nothing in any model that never knew: before them it sees the answer in
    the picture by itself."""
    base = np.maximum(panel.base.forget.mean(0), 1e-12)
    others = [model.forget.mean(0) / base for model in (panel.null, *panel.floors)]
    return np.max(others, 0) <= MOST_SEEN


def _why_not(gap: Float[ndarray, " layer"], gate: _Gate, counts: Bool[ndarray, " layer"]) -> str:
    """Why no layer is eligible."""
    if not gate.passed.any():
        return (
            f"compatibility gate: base reads the suspect's states of retained facts at {gate.best:.2f} of its own "
            f"reading at best (needs {GATE}): they share no basis"
        )
    if (gate.passed & (gap >= LEAST_GAP)).any() and not (counts & gate.passed & (gap >= LEAST_GAP)).any():
        return "blind here: wherever base reads the answer at all, it reads it from models that never knew too"
    where = "at any layer" if gap.max() < LEAST_GAP else "at a layer that passes the compatibility gate"
    return f"blind here: base does not exceed a model that never knew by {LEAST_GAP} {where}"


def _control(panel: Panel, design: Design) -> Control | Missing:
    """Base in the suspect's place, where the suspect itself could not be judged."""
    return assess(panel._replace(suspect=panel.base, floors=()), design._replace(draws=9999)).control


def _curves(scored: ModelScores, held: ModelScores | None, cast: CaseModels, seed: int) -> tuple[Curve, ...]:
    """Depth profiles of base, suspect, null and floors; holdout people as the suspect's null band."""
    people = scored.people
    roles = {"base": "base", "suspect": "suspect"}
    if cast.null_role is not None:
        roles["null"] = cast.null_role
    roles |= {name: "floor" for name in people if name.startswith("floor")}
    curves = {name: curve(role, people[name], seed) for name, role in roles.items()}
    if held is not None:
        null = curve("suspect", held.people["suspect"], seed)
        curves["suspect"] = curves["suspect"].model_copy(update={"null_lo": null.lo, "null_hi": null.hi})
    return tuple(curves.values())
