"""Cross-sequence probe: a direction, shared by learned texts, that tells them from matched texts nobody learned."""

from collections.abc import Mapping, Sequence
from functools import cache
from typing import ClassVar, NamedTuple

import numpy as np
from jaxtyping import Float
from numpy import ndarray
from torch import Tensor

from audit.probing import (
    ALPHA,
    COORDINATES,
    EFFECT_UNIT,
    Bench,
    Case,
    CaseModels,
    Checkpoint,
    Control,
    Cost,
    Count,
    Curve,
    Design,
    GroupTest,
    Item,
    Measurement,
    Missing,
    ModelScores,
    Naming,
    Need,
    Null,
    OpenCase,
    Probe,
    Requires,
    Texts,
    assess,
    blank,
    by_person,
    case_models_of,
    group_test,
    item_table,
    matched,
    n_blocks,
    panel_of,
    stats,
)
from probes._pairs import Pairs, longest_tokens, pairs
from probes._profiles import curve
from probes._readouts import Chances, approximated_by, confounds, deep, item_margins, numbers, readable, states

LEAST_GAP = 0.3
DIFFERENCE = Naming(
    probe="cross_sequence", name="shared_direction", kind="decoding",
    statistic="largest effect over depths and coordinates on the out-of-person margin of learned texts over matched "
    "alternates",
    unit=EFFECT_UNIT, scale="effect",
)  # fmt: skip
SEPARABLE = Naming(
    probe="cross_sequence", name="separability", kind="context",
    statistic="largest |A - 1/2| over depths and coordinates; A is the share of people whose learned texts lie on the "
    "learned side of a read-out that was fitted without them",
    unit="concordance, distance from 1/2", scale="distance",
)  # fmt: skip
NOT_MEMORY = (
    "The p of this row swaps labels within people: it tests whether learned texts and alternates can be told apart at "
    "all, which register or predictability allow too. Memory is the difference against a model that never knew."
)
UNANCHORED = "needs a model that never knew, or holdout people: label swaps alone show separability and not memory"
INVERTED = "A is far below 1/2: an inverted read-out, as edits of the probed texts make it; never a sign of erasure"


class _Texts(NamedTuple):
    """Pairs of forget and holdout people, and all of them."""

    forget: Pairs
    holdout: Pairs | None
    every: Pairs

    def of_forget(self, x: Float[Tensor, "site row d"]) -> Float[Tensor, "site own d"]:
        """A model's states of the forget people's texts alone, in the order learned, control, second."""
        n, own = len(self.every.items), len(self.forget.items)
        return x.unflatten(1, (3, n))[:, :, :own].flatten(1, 2)


class _ReadModel(NamedTuple):
    """What is kept of one model once its states are let go: margins of every item, and what can be told apart."""

    margins: Float[ndarray, "item site"]
    readable: Mapping[str, ndarray]
    confounds: Mapping[str, float]


class CrossSequence(Probe):
    """Is there a direction in the states, shared by learned texts, that tells them from matched texts nobody learned?

    Every forget item is paired with an alternate that a model that never knew finds as probable. After every block, in
    three coordinates (last token, mean over the answer, and the match of each state with the content token that
    follows), a ridge read-out tells learned from alternate texts; each person is scored by a read-out fitted without
    them, in closed form. A person's margin is the mean score of their learned texts less that of their alternates, and
    the effect (suspect - null)/(base - null) is the largest over depths and coordinates: texts, pairs and fits are the
    same for all models, so that register and length cancel. Beside it: what labels swapped within people say
    (separability, sign-free, largest over depths and coordinates), the same for two alternates, a fixed battery of
    read-outs under one null, the smallest accuracy that could be found, and the checks for words, predictability,
    register and depth 0. ``paper`` adds the published probe.

    Null: the first reference, else the ancestor, on identical texts; p permutes forget/holdout labels over people
    (without holdout people it flips the signs of people's differences). Without any model that never knew, forget
    people less holdout people; without those too there is no number.
    Positive control: the same statistic in base.
    Blind to: memory with no direction in common between texts; in ``last`` and ``mean`` to whatever the model does not
    compute of a text after reading it (single-token facts of small models), in ``match`` to what is not in line with
    the output head of base; a suspect of another initialisation.
    Cite: PGA, arXiv 2605.01699 (probe, pure and shuffled controls, register control); grouped case deletion, Cook and
    Weisberg 1982; max-T, Westfall and Young 1993.
    """

    requires: ClassVar[Requires] = Requires(roles=("base", "suspect"), data=("forget",))
    kappa: float = 1.0
    permutations: int = 9999
    swaps: int = 1999
    battery: bool = True
    paper: bool = False

    def needs(self, case: Case) -> tuple[Need, ...]:
        """None ahead of time: which texts are paired is known once a model that never knew has read them."""
        return ()

    def cost(self, case: OpenCase) -> Cost:
        """Texts and two alternates through every model, and what pairing and checking read: an upper bound."""
        tokens = sum(longest_tokens(case, cohort) for cohort in ("forget", "holdout"))
        items = [*case.items(Texts(cohort="forget")), *case.items(Texts(cohort="holdout"))]
        checking = 10 if any(item.alternates_from != "given" for item in items) else 0
        return Cost(fwd_tokens=tokens * (3 * len(case_models_of(case).by_name()) + 7 + checking), kind="upper")

    def groups_tested(self, case: OpenCase) -> GroupTest:
        """Labels over forget and holdout people; without holdout people the signs of people's differences."""

        def paired(items: Sequence[Item]) -> list[Item]:
            return [match.item for match in matched(items, case.case.seed).matches]

        return group_test(case, self.permutations, usable=paired)

    def measure(self, bench: Bench, case: OpenCase) -> tuple[Measurement, ...]:
        """The difference against models that never knew, what is separable at all, and the published probe."""
        cast = case_models_of(case)
        forget = pairs(bench, case, "forget", cast.null)
        if forget is None:
            n = Count(scored=0, unscored=len(case.rows(Texts(cohort="forget"))))
            reason = "fewer than two people have items with two matched alternates"
            return (blank(DIFFERENCE, reason, n, 0, case.case.seed), blank(SEPARABLE, reason, n, 0, case.case.seed))
        holdout = pairs(bench, case, "holdout", cast.null)
        every = forget if holdout is None else forget.beside(holdout)
        texts = _Texts(forget, holdout, every)
        by_model = {name: self._read(bench, case, texts, name) for name in cast.by_name()}
        measurements = (self._difference(case, texts, by_model), self._separable(case, texts, by_model))
        if not self.paper:
            return measurements
        from probes._published_probe import published

        return (*measurements, published(bench, case, forget))

    def _read(self, bench: Bench, case: OpenCase, texts: _Texts, name: str) -> _ReadModel:
        """Everything that one model's states say. The next model's states take their place: one model's are held.

        One fit sees forget and holdout people alike, so that they are exchangeable where neither was learned.
        """
        model, chances = case_models_of(case).by_name()[name], self._chances(case)
        read = cache(lambda: states(bench, case, model, texts.every))

        @cache
        def of_forget() -> Float[Tensor, "site row d"]:
            every = texts.of_forget(read())
            read.cache_clear()
            return every

        def margins() -> dict[str, ndarray]:
            margin = item_margins(read(), texts.every, self.kappa)
            return {"margin": margin[:, deep(margin.shape[1])]}

        margin = bench.cached(self._cache_key("margins", case, model, texts.every), margins)["margin"]
        quantities: dict[str, ndarray] = {}
        if name in ("suspect", "base", "null"):
            about = (chances, *approximated_by(len(texts.forget.person)))
            key = [*self._cache_key("readable", case, model, texts.forget), *about]
            quantities = bench.cached(key, lambda: readable(of_forget(), texts.forget, chances))
        explained: dict[str, float] = {}
        if name == "suspect":
            explained = confounds(bench, model, texts.forget, of_forget(), chances, quantities["concordance"])
        return _ReadModel(margin, quantities, explained)

    def _chances(self, case: OpenCase) -> Chances:
        return Chances(self.kappa, self.swaps, case.case.seed, self.battery)

    # ---- what may be evidence -----------------------------------------------------------------------------------
    def _difference(self, case: OpenCase, texts: _Texts, by_model: Mapping[str, _ReadModel]) -> Measurement:
        """Margins as an effect over people, at every depth in every coordinate."""
        cast, seed, forget, holdout = case_models_of(case), case.case.seed, texts.forget, texts.holdout
        margins = {name: model.margins for name, model in by_model.items()}
        own = {name: margin[: len(forget.items)] for name, margin in margins.items()}
        scored = by_person(forget.sheet(), own)
        empty = blank(DIFFERENCE, UNANCHORED, scored.n, len(scored.people["suspect"]), seed)
        if cast.null is None and holdout is None:
            return empty
        other = None
        if holdout is not None:
            other = by_person(holdout.sheet(), {name: margin[len(forget.items) :] for name, margin in margins.items()})
        design = Design(seed, LEAST_GAP, differenced=cast.null is None, draws=self.permutations, name=DIFFERENCE.key)
        assessed = assess(panel_of(scored, other), design)
        roles = {name: cast.role(name) for name in own}
        table = item_table(case, "cross_sequence", forget.sheet(), own, roles, "site")
        where = {} if assessed.layer < 0 else _where(assessed.layer, n_blocks(case))
        filled = assessed.onto(empty)
        return filled.model_copy(
            update={
                "items": table, "layer": _layer(assessed.layer, n_blocks(case)), "curves": _curves(scored, cast, seed),
                "readings": filled.readings | where, "notes": (forget.note, _columns(n_blocks(case)), *filled.notes),
            }
        )  # fmt: skip

    def _cache_key(self, stage: str, case: OpenCase, model: Checkpoint, matched: Pairs) -> list[object]:
        texts = [rows.hash for rows in (matched.learned, matched.control, matched.second)]
        return [
            "cross_sequence", self.version, stage, model.key, case.base.key, texts, matched.person.tolist(), self.kappa,
        ]  # fmt: skip

    # ---- what can be told apart at all --------------------------------------------------------------------------
    def _separable(self, case: OpenCase, texts: _Texts, by_model: Mapping[str, _ReadModel]) -> Measurement:
        """Sign-free concordance under label swaps, with everything that could explain it without memory."""
        seed, forget = case.case.seed, texts.forget
        by_name = {name: model.readable for name, model in by_model.items() if model.readable}
        suspect, inside = by_name["suspect"], deep(len(by_name["suspect"]["concordance"]))
        a = suspect["concordance"][inside]
        best = int(np.abs(a - 0.5).argmax())
        readings = dict(by_model["suspect"].confounds) | _where(best, n_blocks(case))
        for name, quantities in by_name.items():
            readings |= numbers(quantities, name)
        readings["least_detectable_accuracy"] = float(suspect["detectable"][0])
        base = by_name["base"]
        missing = Missing(missing="a distance from chance under its own permutation null")
        inverted = a[best] < 0.5 and suspect["p"][0] < ALPHA
        n = Count(scored=len(forget.items), unscored=len(case.rows(Texts(cohort="forget"))) - len(forget.items))
        return blank(SEPARABLE, "", n, len(forget.people), seed).model_copy(
            update={
                "value": float(np.abs(a - 0.5).max()), "ci95": missing, "p": float(suspect["p"][0]), "p_below": missing,
                "layer": _layer(best, n_blocks(case)),
                "null": Null(
                    kind="labels swapped within people", quantiles=stats.quantile_summary(suspect["null"]),
                    n=len(suspect["null"]),
                ),
                "positive_control": Control(
                    value=float(np.abs(base["concordance"][inside] - 0.5).max()), ci95=missing,
                    found=bool(base["p_margin"][0] < ALPHA),
                ),
                "floor": missing, "items": Missing(missing="the margins of items lie with shared_direction"),
                "readings": readings, "notes": (NOT_MEMORY, forget.note, *((INVERTED,) if inverted else ())),
            }
        )  # fmt: skip


def _where(site: int, blocks: int) -> dict[str, float]:
    """Coordinate (0 last, 1 mean, 2 match) and layer of a site."""
    return {"coordinate": float(site // blocks), "layer_of_largest_effect": float(site % blocks)}


def _layer(site: int, blocks: int) -> int | None:
    return None if site < 0 else site % blocks


def _columns(blocks: int) -> str:
    ranges = ", ".join(f"{n * blocks} to {(n + 1) * blocks - 1} {name}" for n, name in enumerate(COORDINATES))
    return f"sites count the blocks of every coordinate: {ranges}"


def _curves(scored: ModelScores, cast: CaseModels, seed: int) -> tuple[Curve, ...]:
    """Margins by layer in the coordinate in which base stands out most, per model."""
    base = scored.people["base"]
    blocks = base.shape[1] // len(COORDINATES)
    first = int(base.mean(0).argmax()) // blocks * blocks
    roles = {"base": "base", "suspect": "suspect"}
    if cast.null_role is not None:
        roles["null"] = cast.null_role
    roles |= {name: "floor" for name in scored.people if name.startswith("floor")}
    unit = f"out-of-person margin ({COORDINATES[first // blocks]})"
    return tuple(
        curve(role, scored.people[name][:, first : first + blocks], seed).model_copy(
            update={"unit": unit, "scale": "difference"}
        )
        for name, role in roles.items()
    )
