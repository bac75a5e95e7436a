"""Reverse patching: base's later blocks read the suspect's states, layer by layer."""

from collections.abc import Mapping
from typing import ClassVar, NamedTuple

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from audit.bench import Bench, OpenCase
from audit.findings import Control, Curve, Measurement
from audit.nouns import Case, Cost, Form, Missing, Need, Op, Requires, Texts
from probes._depth_score import depth_score
from probes._effects import Design, Naming, Panel, Sides, assess, blank
from probes._probe import Probe
from probes._profiles import Mode, Reading, curve, mismatched, profile, share
from probes._scores import KEY_LOGPROB, Cast, by_person, cast_of, item_table, n_blocks, sheet_of

GATE = 0.5
LEAST_GAP = 0.3
HELD_OUT: tuple[Form, ...] = ("held_out_phrasing", "held_out_attribute")
WEAKER = (
    "No model that never knew was given: the null is base itself with another person's states at the answer positions, "
    "which shows at which layers base can no longer recompute its answer, not what a never-trained state would read."
)


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


class ReversePatch(Probe):
    """At which depth can the model that knew still read the forgotten facts from the suspect's own states?

    The suspect's residual state after a layer is read by base's later blocks, and the probability of the content
    tokens is taken: ``all`` resumes base from the suspect's whole state, ``answer`` puts only the positions that
    predict content tokens into base's own run. Both are computed, ``primary`` says which may enter a verdict. At
    shallow layers the state still is the input and base recomputes the answer itself, so that the effect is
    (suspect - null)/(base - null) at the same layer; the statistic is the largest effect over the eligible layers.
    A layer is eligible where base reads the suspect's states of retained facts (at least half of its own reading, in
    the same mode) and exceeds the null by .3.

    Null: the first reference, else the ancestor, read in the same way; p flips the signs of people's differences
    (studentised, the largest over the eligible layers). Without either, base with another person's states at the
    answer positions, with weaker wording.
    Positive control: the same statistic with base in the suspect's place; base reads its own states unchanged.
    Blind to: knowledge re-encoded so that base's blocks cannot read it; a suspect that shares no basis with base is
    stopped by the compatibility gate and never judged.
    Cite: Unlearning Depth Score, arXiv 2605.24614 (the published score is computed as well, with states taken before
    the final norm, where the public code mixes the two at the last layer); Patchscopes, arXiv 2401.06102.
    """

    requires: ClassVar[Requires] = Requires(
        roles=("base", "suspect"), data=("forget", "retain"), ops=(Op.READ, Op.WRITE, Op.RESUME)
    )
    primary: Mode = "all"
    permutations: int = 9999
    tau_nats: float = 0.05

    def needs(self, case: Case) -> tuple[Need, ...]:
        """Base's own outputs; everything else is patched and priced by :meth:`cost`."""
        cohorts = ("forget", "retain")
        return tuple(Need(role="base", texts=Texts(cohort=c), reads=(KEY_LOGPROB,)) for c in cohorts)

    def cost(self, case: OpenCase) -> Cost:
        """Every source once, and base once per source, mode and layer: an upper bound, since base resumes midway."""
        forget = int(case.rows(Texts(cohort="forget")).mask.sum())
        retain = int(case.rows(Texts(cohort="retain")).mask.sum())
        apart = [Texts(cohort="forget", form=form) for form in HELD_OUT]
        other = sum(int(case.rows(t).mask.sum()) for t in apart if case.has(t))
        sources = max(len(cast_of(case).named()) - 1, 2)
        tokens = (1 + n_blocks(case)) * (sources * (2 * forget + other) + 2 * retain)
        return Cost(fwd_tokens=tokens, resident=2, kind="upper")

    def measure(self, bench: Bench, case: OpenCase) -> tuple[Measurement, ...]:
        """The depth profile in the primary mode (forms apart), in the other mode, and the published score."""
        cast = cast_of(case)
        primary: Mode = "answer" if cast.null is None else self.primary
        modes: list[Mode] = [primary, "all" if primary == "answer" else "answer"]
        found: list[Measurement] = []
        for mode in modes[: 1 if cast.null is None else 2]:
            gate = self._gate(bench, case, cast, mode)
            forms = ("trained", *HELD_OUT) if mode == primary else ("trained",)
            for form in forms:
                texts = Texts(cohort="forget", form=form)
                if not case.has(texts):
                    continue
                reading = self._read(bench, case, cast, (texts, mode))
                found.append(self._judged(case, cast, reading, _Task(mode, form, mode == primary, gate)))
                if mode == "answer" and form == "trained" and cast.null is not None:
                    found.append(depth_score(reading, self.tau_nats, case.case.seed))
        return tuple(found)

    def _read(self, bench: Bench, case: OpenCase, cast: Cast, what: tuple[Texts, Mode]) -> Reading:
        sources = {name: c for name, c in cast.named().items() if name != "base"}
        reading = profile(bench, cast.base, sources, sheet_of(case, what[0]), what[1])
        if cast.null is not None:
            return reading
        return reading._replace(logprob={**reading.logprob, "null": mismatched(bench, cast.base, reading.sheet)})

    def _gate(self, bench: Bench, case: OpenCase, cast: Cast, mode: Mode) -> _Gate:
        """Retained facts: the suspect's states read by base, relative to base's own."""
        reading = profile(bench, cast.base, {"suspect": cast.suspect}, sheet_of(case, Texts(cohort="retain")), mode)
        people = by_person(reading.sheet, reading.probability()).people
        kept = people["suspect"].mean(0) / np.maximum(people["base"].mean(0), 1e-12)
        return _Gate(share(people["suspect"], people["base"], case.case.seed), kept >= GATE, float(kept.max()))

    def _judged(self, case: OpenCase, cast: Cast, reading: Reading, task: _Task) -> Measurement:
        """One profile as an effect over its eligible layers."""
        scores, seed = reading.probability(), case.case.seed
        scored = by_person(reading.sheet, scores)
        people = scored.people
        name = f"depth_profile_{task.mode}" + ("" if task.form == "trained" else f"_{task.form}")
        naming = Naming(
            probe="reverse_patch", name=name, kind="causal" if task.primary else "context", form=task.form,
            statistic=f"largest effect over eligible layers: suspect's states ({task.mode}) read by base, "
            f"{task.form.replace('_', ' ')} rows",
            unit="effect (0 never trained, 1 base)",
        )  # fmt: skip
        eligible = np.flatnonzero(task.gate.passed & (people["base"].mean(0) - people["null"].mean(0) >= LEAST_GAP))
        roles = {model: cast.role(model) for model in scores}
        filled = blank(naming, _why_not(people, task.gate), scored.n, len(people["suspect"]), seed).model_copy(
            update={
                "curves": (*_curves(people, cast, seed), task.gate.curve),
                "items": item_table(case, f"reverse_patch_{name}", reading.sheet, scores, roles),
                "notes": (_layers(eligible), *(() if cast.null is not None else (WEAKER,))),
            }
        )
        if not len(eligible):
            return filled.model_copy(update={"positive_control": _control(people, seed)})
        sides = {model: Sides(x[:, eligible]) for model, x in people.items()}
        floors = tuple(s for model, s in sides.items() if model.startswith("floor"))
        panel = Panel(sides["suspect"], sides["base"], sides["null"], floors)
        assessed = assess(panel, Design(seed, LEAST_GAP, draws=self.permutations))
        readings = {f"effect_layer{layer}": e for layer, e in zip(eligible.tolist(), assessed.effects, strict=True)}
        best = {"layer_of_largest_effect": float(eligible[assessed.layer])} if assessed.layer >= 0 else {}
        return assessed.onto(filled).model_copy(update={"readings": readings | best})


def _layers(eligible: ndarray) -> str:
    return "eligible layers: " + (", ".join(str(layer) for layer in eligible) if len(eligible) else "none")


def _why_not(people: Mapping[str, ndarray], gate: _Gate) -> str:
    """Why no layer is eligible."""
    if not gate.passed.any():
        return (
            f"compatibility gate: base reads the suspect's states of retained facts at {gate.best:.2f} of its own "
            f"reading at best (needs {GATE}): they share no basis"
        )
    gap = people["base"].mean(0) - people["null"].mean(0)
    where = "at any layer" if gap.max() < LEAST_GAP else "at a layer that passes the compatibility gate"
    return f"blind here: base does not exceed a model that never knew by {LEAST_GAP} {where}"


def _control(people: Mapping[str, ndarray], seed: int) -> Control | Missing:
    """Base in the suspect's place, where the suspect itself could not be judged."""
    base, null = Sides(people["base"]), Sides(people["null"])
    return assess(Panel(base, base, null), Design(seed, LEAST_GAP)).control


def _curves(people: Mapping[str, Float[ndarray, "person layer"]], cast: Cast, seed: int) -> tuple[Curve, ...]:
    """Depth profiles of base, suspect, null and floors."""
    roles = {"base": "base", "suspect": "suspect"}
    if cast.null_role is not None:
        roles["null"] = cast.null_role
    roles |= {name: "floor" for name in people if name.startswith("floor")}
    return tuple(curve(role, people[name], seed) for name, role in roles.items())
