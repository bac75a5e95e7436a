"""Representation similarity: are the suspect's states those of base, or of a model that never knew?"""

from math import ceil
from typing import ClassVar

import numpy as np
from jaxtyping import Int
from numpy import ndarray

from audit.probing import (
    EFFECT_UNIT,
    Bench,
    Case,
    CaseModels,
    Cohort,
    Cost,
    Count,
    Curve,
    Design,
    GroupTest,
    Interval,
    Measurement,
    Missing,
    ModelScores,
    Naming,
    Need,
    OpenCase,
    Overall,
    Panel,
    Power,
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
    n_blocks,
    panel_of,
    stats,
    usable_information,
)
from probes._answer_states import COHORTS, Answering, States, answering, classes, states
from probes._class_readouts import Answers, gap, informed, recognised
from probes._placement import NO_NULL, aligned_models, last_layer, placed
from probes._profiles import curve

LEAST_GAP_NATS = 0.2
SHARED = Naming(
    probe="representation_similarity", name="shared_information", kind="decoding",
    statistic="largest effect over layers on the information about the answer's class (nats) that read-outs of base's "
    "and of the suspect's states both give: the smaller of both, item by item",
    unit=EFFECT_UNIT, scale="effect",
)  # fmt: skip
TRANSFER = Naming(
    probe="representation_similarity", name="transfer_gap", kind="context",
    statistic="|accuracy of the suspect - that of a reference| on forget items, the class of most of the 5 nearest "
    "states of other groups (cosine), in the states that the head reads",
    unit="difference in accuracy", scale="difference",
)  # fmt: skip
NO_CLASSES = (
    "the forgotten answers make no classes: fewer than two contents, a forgotten one among them, are the answers of "
    "{least} groups each"
)
HEADLINE = "neighbours"
LISTED = Missing(missing="accuracies of read-outs are listed beside one another")
NEIGHBOURLY = (
    "neighbours: 5 nearest by cosine; ridge: closed form; both from items of other groups, retained items among them; "
    "gap_..._base is what base differs from the reference by"
)
UNANCHORED = "needs a model that never knew, or holdout people"
DECIDED = (
    "Listed and not judged: a few classes were forgotten that no retained item has. How much can be read of a class "
    "that a model never saw differs from model to model by more than its items show."
)
NOT_JUDGED = (
    "Listed and not judged (`judged`): models that never knew differ here by more than their people show, since how "
    "well a model knows what kind of answer is asked for is shared by all of them. Without a calibration that says by "
    "how much, this would take some of them for models that know."
)
NO_HOLDOUT = (
    "Listed and not judged: there are no holdout people with such answers. How much can be read of everybody's answers "
    "differs between models that never knew, which signs of people's differences take for something learned."
)
NOT_IN_PROPORTION = (
    "A person's answer is read where that person is known, by a read-out fitted on others who are: where a share s of "
    "the people is known, the effect is about s squared. The overall effect and its interval are given as the share s "
    "(the root, where they are above 0), and so is what the test would find."
)
PARTS = Missing(missing="a person's part depends on how many others are known")
FORMULA = (
    "R = mean_i min(i_base(i), i_suspect(i)), i(i) = log q(y|x) - log p(y) in nats, out of group; 0 <= R <= "
    "min(I_base, I_suspect)"
)


class RepresentationSimilarity(Probe):
    """Are the states that are about to give the forgotten answers still base's, or those of a model that never knew?

    Three readings of the states before the answer (of a classifier: what its head reads), after every block and at the
    head. *Placement*: how alike states are (centred kernel alignment, unbiased), suspect against base and against a
    reference, placed between base (1) and a second reference (0), forget and retained items apart. *Transfer*: how
    often the class of a forgotten answer is found from other groups' states, by neighbours and by ridge. *Shared
    information*: a read-out of the class is fitted on other groups, for each model by itself; of every item the
    smaller of what base's and the suspect's states say counts (the redundant part), and becomes an effect
    (suspect - null)/(base - null) over people.

    Null: the first reference, else the ancestor, in the suspect's place; p permutes forget/holdout labels over people
    on what the suspect shares with base beyond that. Without any model that never knew, forget people less holdout
    people. All three are listed only. ``judged`` lets shared information enter the verdict, but not without holdout
    people, where its p is of flipped signs, nor where a few whole classes were forgotten.
    Positive control: the same with base in the suspect's place.
    Blind to: small parts of states (similarity is ruled by their few largest directions); answers that do not repeat
    over groups, of which there are no classes; what is not linear in the states; a few people known among many, since
    read-outs are fitted on the others.
    Cite: CKA, Kornblith et al. 2019 (arXiv 1905.00414), unbiased after Song et al. 2012; the four comparisons after
    arXiv 2503.06991; usable information, Xu et al. 2020 (arXiv 2002.10689); its redundant part after the idea of arXiv
    2601.15111, by a formula of our own.
    """

    requires: ClassVar[Requires] = Requires(
        roles=("base", "suspect"), modalities=("text", "image", "image+text"), data=("forget", "retain")
    )
    kappa: float = 1.0
    least_groups: int = 2
    most_rows: int = 1000
    permutations: int = 9999
    judged: bool = False

    def needs(self, case: Case) -> tuple[Need, ...]:
        """None ahead of time: texts are read up to their answers alone, and which layers there are is known once base
        is found; see :meth:`cost`."""
        return ()

    def cost(self, case: OpenCase) -> Cost:
        """Texts up to their first content token, of forget, holdout and some retained people, once through every
        model."""
        tokens = sum(int(part.rows.mask.sum()) for part in self._cohorts(case).values())
        return Cost(fwd_tokens=tokens * len(case_models_of(case).by_name()), kind="upper")

    def groups_tested(self, case: OpenCase) -> GroupTest | None:
        """Labels over forget and holdout people, where it is to be judged; without holdout people nothing is tested."""
        tested = self.judged and case.has(Texts(cohort="holdout"))
        return group_test(case, self.permutations) if tested else None

    def measure(self, bench: Bench, case: OpenCase) -> tuple[Measurement, ...]:
        """Placement, transfer, and the redundant part."""
        cast, cohorts, blocks = case_models_of(case), self._cohorts(case), n_blocks(case)
        by_class = classes(cohorts, self.least_groups)
        tokens = sorted(set(by_class.tokens))
        read: dict[str, dict[Cohort, States]] = {
            name: {cohort: states(bench, model, part.rows, blocks, tokens) for cohort, part in cohorts.items()}
            for name, model in cast.by_name().items()
        }
        placement = placed(aligned_models(read, cohorts), cast, case.case.seed)
        answers = Answers(cohorts, by_class, read)
        if len(answers.classes.tokens) < 2 or not answers.classes.of("forget").any():
            reason, n = NO_CLASSES.format(least=self.least_groups), Count(scored=0, unscored=answers.unscored("forget"))
            return (placement, *(blank(naming, reason, n, 0, case.case.seed) for naming in (TRANSFER, SHARED)))
        return (placement, self._transfer(case, cast, answers), self._shared(case, cast, answers))

    def _cohorts(self, case: OpenCase) -> dict[Cohort, Answering]:
        """The rows that are read."""
        cohorts: dict[Cohort, Answering] = {}
        for cohort in COHORTS:
            part = answering(case, cohort, self.most_rows if cohort == "retain" else None)
            if part is not None:
                cohorts[cohort] = part
        return cohorts

    # ---- what may be evidence -----------------------------------------------------------------------------------
    def _shared(self, case: OpenCase, cast: CaseModels, answers: Answers) -> Measurement:
        """The redundant part of base's and each model's states about the answers, as an effect over people."""
        of, seed = answers.task(), case.case.seed
        nats = {name: informed(answers.layers(name), of, self.kappa) for name in answers.states}
        both = {name: usable_information.redundant(nats["base"], x).numpy() for name, x in nats.items()}
        forget, other = answers.sheet("forget"), answers.sheet("holdout") if "holdout" in answers.cohorts else None
        assert forget is not None, "there are forgotten classes"
        own = answers.of("forget", both)
        scored, held = by_person(forget, own), None
        if other is not None:
            held = by_person(other, answers.of("holdout", both))
        listed = (DECIDED,) if answers.classes.decided else (NO_HOLDOUT,) if held is None else ()
        listed = listed or (() if self.judged else (NOT_JUDGED,))
        naming = SHARED._replace(kind="context") if listed else SHARED
        empty = blank(naming, UNANCHORED, _counted(scored, answers), len(scored.groups), seed)
        if cast.null is None and held is None:
            return empty
        design = Design(seed, LEAST_GAP_NATS, differenced=cast.null is None, draws=self.permutations, name=naming.key)
        panel = panel_of(scored, held)
        layers = _telling(panel, design)
        assessed = assess(panel.at(layers), design)
        layer = int(layers[assessed.layer]) if assessed.layer >= 0 else None
        readings = {} if layer is None else {"layer_of_largest_effect": float(layer)}
        inside = answers.classes.of("forget")
        for name, x in nats.items():
            redundant = max(float(own[name][:, -1].mean()), 0.0)
            readings |= {f"information_nats_{name}": float(x[inside, -1].mean()), f"redundant_nats_{name}": redundant}
        filled, roles = _as_shares(assessed.onto(empty)), {name: cast.role(name) for name in own}
        return filled.model_copy(
            update={
                "items": item_table(case, "representation_similarity_shared", forget, own, roles, "layer"),
                "layer": layer,
                "readings": filled.readings | readings, "curves": _curves(scored, cast, seed),
                "notes": (*filled.notes, FORMULA, NOT_IN_PROPORTION, last_layer(n_blocks(case)), *listed),
            }
        )  # fmt: skip

    # ---- what is listed -----------------------------------------------------------------------------------------
    def _transfer(self, case: OpenCase, cast: CaseModels, answers: Answers) -> Measurement:
        """How often the classes of forgotten answers are found from other groups' states, in every model."""
        of, sheet, seed = answers.task(), answers.sheet("forget"), case.case.seed
        assert sheet is not None, "there are forgotten classes"
        by_model = {name: recognised(answers, name, of, self.kappa) for name in answers.states}
        ways = list(by_model["base"])
        people = {
            way: by_person(sheet, answers.of("forget", {name: by_model[name][way] for name in by_model}))
            for way in ways
        }
        readings = {f"{way}_{name}": float(x.mean()) for way in ways for name, x in people[way].people.items()}
        retained = {way: answers.of("retain", {name: by_model[name][way] for name in by_model}) for way in ways}
        readings |= {f"{way}_retain_{name}": float(x.mean()) for way in ways for name, x in retained[way].items()}
        own = answers.of("forget", {name: by_model[name][HEADLINE] for name in by_model})
        roles, scored = {name: cast.role(name) for name in own}, people[HEADLINE]
        filled = blank(TRANSFER, NO_NULL, _counted(scored, answers), len(scored.groups), seed).model_copy(
            update={
                "items": item_table(case, "representation_similarity_transfer", sheet, own, roles),
                "notes": (NEIGHBOURLY,),
                "p": LISTED, "p_below": LISTED, "null": LISTED, "positive_control": LISTED, "floor": LISTED,
            }
        )  # fmt: skip
        if cast.null is None:
            return filled.model_copy(update={"readings": readings})
        readings |= {f"gap_{way}_{name}": gap(people[way].people, name) for way in ways for name in ("suspect", "base")}
        difference = scored.people["suspect"] - scored.people["null"]
        drawn = stats.bootstrap_effect(difference, np.ones_like(difference), seed).effect
        return filled.model_copy(
            update={
                "value": readings[f"gap_{HEADLINE}_suspect"], "readings": readings,
                "ci95": stats.percentile_interval(np.abs(drawn[:, 0])),
            }
        )  # fmt: skip


def _telling(panel: Panel, design: Design) -> Int[ndarray, " layer"]:
    """Layers at which base exceeds the null by at least half of the most: elsewhere states rather say what is asked."""
    gap = base_gap(panel, design)
    return np.flatnonzero(gap >= gap.max() / 2) if gap.max() > 0 else np.arange(len(gap))


def _as_shares(m: Measurement) -> Measurement:
    """The overall effect, its interval and the power as the share of people who would have to be known for it."""

    def root(x: float) -> float:
        return float(np.sqrt(x)) if x > 0 else x

    update: dict[str, object] = {"people": PARTS}
    if isinstance(m.overall, Overall):
        ends, floor = m.overall.ci95, m.overall.floor
        update["overall"] = Overall(
            value=root(m.overall.value), floor=floor if isinstance(floor, Missing) else root(floor),
            ci95=ends if isinstance(ends, Missing) else Interval(lo=root(ends.lo), hi=root(ends.hi)),
        )  # fmt: skip
    if isinstance(m.power, Power):
        share, people, of = m.power.share, m.power.people, m.power.of
        update["power"] = m.power.model_copy(
            update={
                "share": share if isinstance(share, Missing) else root(share),
                "people": people if isinstance(people, Missing) else min(ceil(root(people * of)), of),
            }
        )
    return m.model_copy(update=update)


def _counted(scored: ModelScores, answers: Answers) -> Count:
    """The forget items behind a number; those whose answers make no class are unscored."""
    return scored.n.model_copy(update={"unscored": answers.unscored("forget")})


def _curves(scored: ModelScores, cast: CaseModels, seed: int) -> tuple[Curve, ...]:
    """Redundant information by layer, per model; the last is what the head reads."""
    roles = {"base": "base", "suspect": "suspect"}
    if cast.null_role is not None:
        roles["null"] = cast.null_role
    roles |= {name: "floor" for name in scored.people if name.startswith("floor")}
    unit = {"unit": "information shared with base (nats)", "scale": "difference"}
    return tuple(curve(role, scored.people[name], seed).model_copy(update=unit) for name, role in roles.items())
