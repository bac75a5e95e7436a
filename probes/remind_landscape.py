"""REMIND: how the loss of a forgotten text changes when its words are replaced by neighbours."""

from collections.abc import Callable, Mapping
from typing import ClassVar, NamedTuple

from jaxtyping import Float
from numpy import ndarray

from audit.probing import (
    EFFECT_UNIT,
    Bench,
    Case,
    Checkpoint,
    Cost,
    Design,
    GroupTest,
    Measurement,
    Naming,
    Need,
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
    panel_of,
    person_rows_of,
)
from probes._landscape import (
    Draw,
    Landscape,
    Neighbours,
    embeddings,
    landscape,
    nearest_tokens,
    neighbours,
    rise,
    sharpness,
)

LEAST_GAP = 0.1
FORGET, HOLDOUT = Texts(cohort="forget"), Texts(cohort="holdout")
SHARP = Naming(
    probe="remind_landscape", name="sharpness", kind="recovery",
    statistic="log spread, over neighbours of the prompt and answer, of the change in loss of content tokens that are "
    "not replaced themselves; forget less holdout people",
    unit=EFFECT_UNIT, scale="score",
)  # fmt: skip
RISE = SHARP._replace(
    name="rise",
    statistic="mean change, over neighbours, in the loss of content tokens that are kept; forget less holdout people",
)
TWO_SIDED = (
    "Above 0 the landscape is sharper than that of a model that never knew (residual memory), below 0 flatter "
    "(over-unlearned): two findings, of which a small p below is the second."
)


class _Landscapes(NamedTuple):
    """Every model's landscapes of the forget people's texts, and of the holdout people's where there are any."""

    forget: Mapping[str, Landscape]
    holdout: Mapping[str, Landscape] | None


class RemindLandscape(Probe):
    """Is the loss landscape around the forgotten texts that of a model that never knew them?

    The words of question and answer are replaced, each with probability ``share``, by one of the ``nearest`` tokens in
    base's table of input embeddings, and the loss of the content tokens that were not replaced is read again, in
    ``count`` neighbours that are the same for every model. A text that was learned answers for its own words alone:
    its loss rises, and unevenly. Two effects over people, (suspect - null)/(base - null), each forget less holdout
    people where these are given: the log of the spread over neighbours (sharpness), and the mean change (rise).
    ``classifier`` adds the published classifier, read beside a baseline that sees no model.

    Null: the first reference, else the ancestor, on the same neighbours; p permutes forget/holdout labels over people.
    Without holdout people the signs of people's differences are flipped, which a flatter model as a whole moves too.
    Without any model that never knew, forget people less holdout people.
    Positive control: the same statistic in base.
    Blind to: everything that the outputs do not show (an edited head or a refusal reads as it answers); differences of
    topic, format and length between the cohorts, which is why no claim is made on the classifier alone; a destroyed
    model, which is flat everywhere.
    Cite: REMIND, Cohen, Nemcovsky and Mendelson 2025 (arXiv 2511.04228v1).
    """

    requires: ClassVar[Requires] = Requires(roles=("base", "suspect"), data=("forget",))
    count: int = 16
    nearest: int = 15
    share: float = 0.2
    permutations: int = 9999
    classifier: bool = False

    def needs(self, case: Case) -> tuple[Need, ...]:
        """None: neighbours are drawn once base's embeddings are there."""
        return ()

    def cost(self, case: OpenCase) -> Cost:
        """Every neighbour of forget and holdout people through every model; the classifier asks retained people too."""
        tokens = sum(int(case.rows(t).mask.sum()) for t in (FORGET, HOLDOUT) if case.has(t))
        once = (1 + self.count) * tokens * len(case_models_of(case).by_name())
        if not self.classifier:
            return Cost(fwd_tokens=once)
        from probes._landscape_classifier import passes

        return Cost(fwd_tokens=once + passes(case, self.count), kind="upper")

    def groups_tested(self, case: OpenCase) -> GroupTest:
        """Labels over forget and holdout people; without holdout people the signs of people's differences."""
        return group_test(case, self.permutations)

    def measure(self, bench: Bench, case: OpenCase) -> tuple[Measurement, ...]:
        """Sharpness and rise against models that never knew; the published classifier where it is asked for."""
        cast = case_models_of(case)
        forget = {name: self._landscape(bench, case, model, FORGET) for name, model in cast.by_name().items()}
        holdout: Mapping[str, Landscape] | None = None
        if case.has(HOLDOUT):
            holdout = {name: self._landscape(bench, case, model, HOLDOUT) for name, model in cast.by_name().items()}
        landscapes = _Landscapes(forget, holdout)
        measurements = (
            self._judged(case, RISE, rise, landscapes),
            self._judged(case, SHARP, sharpness, landscapes),
        )
        if not self.classifier:
            return measurements
        from probes._landscape_classifier import Settings, classified

        return (*measurements, *classified(bench, case, Settings(self.count, self.nearest, self.share)))

    def _landscape(self, bench: Bench, case: OpenCase, model: Checkpoint, texts: Texts) -> Landscape:
        rows, draw = case.rows(texts), Draw(self.count, self.share, case.case.seed)
        identity = ["landscape", self.version, model.key, case.base.key, rows.hash, self.nearest, *draw]

        def compute() -> dict[str, ndarray]:
            return landscape(bench, model, rows, drawn(bench, case, texts, self.nearest, draw))._asdict()

        return Landscape(**bench.cached(identity, compute))

    def _judged(
        self,
        case: OpenCase,
        naming: Naming,
        score: Callable[[Landscape], Float[ndarray, "row 1"]],
        landscapes: _Landscapes,
    ) -> Measurement:
        """One statistic as an effect over people."""
        (forget, holdout), cast, seed = landscapes, case_models_of(case), case.case.seed
        sheet = person_rows_of(case, FORGET)
        scores = {name: score(losses) for name, losses in forget.items()}
        scored, other = by_person(sheet, scores), None
        empty = blank(naming, "needs a model that never knew, or holdout people", scored.n, len(sheet.people), seed)
        if cast.null is None and holdout is None:
            return empty
        if holdout is not None:
            other = by_person(person_rows_of(case, HOLDOUT), {name: score(losses) for name, losses in holdout.items()})
        design = Design(seed, LEAST_GAP, differenced=other is not None, draws=self.permutations, name=naming.key)
        assessed = assess(panel_of(scored, other), design)
        roles = {name: cast.role(name) for name in scores}
        table = item_table(case, f"remind_landscape_{naming.name}", sheet, scores, roles)
        levels = {f"nats_{name}": float(people.mean()) for name, people in scored.people.items()}
        held = {} if other is None else {f"nats_holdout_{name}": float(x.mean()) for name, x in other.people.items()}
        filled = assessed.onto(empty)
        return filled.model_copy(
            update={"items": table, "readings": filled.readings | levels | held, "notes": (TWO_SIDED, *filled.notes)}
        )


def drawn(bench: Bench, case: OpenCase, texts: Texts, nearest: int, draw: Draw) -> Neighbours:
    """The neighbours of some texts by base's embeddings: the same for every model of a case."""
    table = embeddings(bench, case.base)
    return neighbours(case.rows(texts), nearest_tokens(table, case.tokenizer, nearest), table, draw)
