"""Release risk: what is given away by whoever keeps the model from before the forgetting beside the one from after."""

from typing import ClassVar, NamedTuple

import numpy as np
from pydantic import Field

from audit.probing import (
    ANSWER_LOGPROB,
    Bench,
    Case,
    CaseModels,
    Checkpoint,
    Cost,
    Count,
    Guidance,
    Listing,
    Measurement,
    Missing,
    Naming,
    Need,
    Op,
    OpenCase,
    Probe,
    Requires,
    Texts,
    blank,
    case_models_of,
    row_means,
    stats,
)
from probes._extraction import Prompted, Said, counted, mean_over_groups, prompted, transcripts

FORGET, HOLDOUT, RETAIN = (Texts(cohort=cohort) for cohort in ("forget", "holdout", "retain"))
ALONE = 1.0
BOTH = Naming(
    probe="release_risk", name="extraction", kind="context",
    statistic="share of forgotten answers, ROUGE-L recall above {least:g}, that come out of base and suspect together",
    unit="share of items", scale="probability",
)  # fmt: skip
DESCRIBED = Missing(missing="a risk of keeping two checkpoints: nothing is tested")
NO_ITEMS = Missing(missing="the answers that come out are counted and not kept")
COLUMNS = ("asked of", "who answers", "answers", "verbatim", "nearly", "mean recall", "lo", "hi")
ORTHOGONAL = (
    "The risk of keeping or releasing both checkpoints, and no sign of failed unlearning: the difference between them "
    "is what was forgotten, and exact retraining shows it as well."
)
OF_RETRAINED = "the same beside a model that never knew, as exact retraining would leave it: {nearly} of {n}"
NO_NULL = "no model that never knew is given: what exact retraining would give away is not known here"
COUNTS = "{both} of {n} answers come out of both checkpoints, {base} of base alone, {suspect} of the suspect alone"
NEARLY = "nearly: ROUGE-L recall above {least:g} of the answer's words"
NAMED = (
    "Whom the request was about is given away too: log p(base) - log p(suspect) of the answers tells forgotten from "
    "kept items with an AUROC of {suspect:.3f}"
)


class _Row(NamedTuple):
    """One way of asking: of which items, of whom, and what was said."""

    of: str
    who: str
    prompts: Prompted
    answers: Said


class ReleaseRisk(Probe):
    """What of the forgotten answers comes out if the models from before and after forgetting are both at hand?

    Base is continued greedily from each question, and its log-probabilities are moved away from the suspect's:
    ``guidance`` times log p(base) less (``guidance`` - 1) times log p(suspect), among the words that base finds at most
    ``reach`` nats less likely than its best. Answers that come out verbatim, and those of which more than ``recall`` of
    the words do in their order (ROUGE-L), are counted, beside base and suspect alone, beside the pair of base and a
    model that never knew, and on holdout items that nobody was taught. It says too how well the difference alone tells
    whom the request was about. A risk of keeping both, whatever the suspect forgot: never a part of a verdict.

    Null: the same pair with a model that never knew in the suspect's place; holdout items, which no model was taught.
    Positive control: none is needed, since nothing is tested; base alone is counted beside it.
    Blind to: other ways of putting two checkpoints together; answers that take more than ``most_tokens`` tokens are
    counted up to there.
    Cite: extraction after exact unlearning, arXiv 2505.24379.
    """

    requires: ClassVar[Requires] = Requires(roles=("base", "suspect"), data=("forget",), ops=(Op.READ, Op.GENERATE))
    screening: ClassVar[bool] = True
    guidance: float = Field(default=2.0, ge=1.0)
    reach: float = Field(default=5.0, gt=0.0)
    recall: float = Field(default=0.9, gt=0.0, lt=1.0)
    most_items: int = Field(default=96, ge=1)
    most_tokens: int = Field(default=32, ge=1)

    def needs(self, case: Case) -> tuple[Need, ...]:
        """Log-probabilities of the answers of forgotten and kept items, in base, suspect and one that never knew."""
        null = case.roles.null
        models = [("base", 0), ("suspect", 0), *([] if null is None else [null])]
        return tuple(
            Need(role=role, reference=i, texts=texts, reads=(ANSWER_LOGPROB,))  # type: ignore[arg-type]
            for role, i in models
            for texts in (FORGET, RETAIN)
        )

    def cost(self, case: OpenCase) -> Cost:
        """Every token of the continuations, with the whole row before it: three models alone, and two pairs."""
        cast = case_models_of(case)
        models = 4 if cast.null is None else 7
        tokens = models * self._prompts(case, FORGET).tokens
        tokens += 2 * self._prompts(case, HOLDOUT).tokens if case.has(HOLDOUT) else 0
        return Cost(fwd_tokens=tokens, resident=2, kind="upper")

    def measure(self, bench: Bench, case: OpenCase) -> tuple[Measurement, ...]:
        """What comes out of both, beside what comes out of either."""
        cast, prompts, seed = case_models_of(case), self._prompts(case, FORGET), case.case.seed
        naming = BOTH._replace(statistic=BOTH.statistic.format(least=self.recall))
        n = Count(scored=len(prompts.rows), unscored=prompts.unread)
        empty = blank(naming, "no item has a question and an answer", n, len(np.unique(prompts.group)), seed)
        if not len(prompts.rows):
            return (empty,)
        rows = self._rows(bench, case, cast, prompts)
        by_who = {row.who: row.answers for row in rows if row.of == "forget"}
        value, ends = mean_over_groups((by_who["base and suspect"].recall > self.recall) * 1.0, prompts.group, seed)
        label = _named(bench, case, cast)
        return (
            empty.model_copy(
                update={
                    "value": value, "ci95": Missing(missing="an interval needs two groups") if ends is None else ends,
                    "p": DESCRIBED, "p_below": DESCRIBED, "null": DESCRIBED, "positive_control": DESCRIBED,
                    "floor": DESCRIBED, "items": NO_ITEMS, "readings": self._readings(rows) | label,
                    "listings": (self._listing(rows, seed),), "notes": self._notes(by_who, label),
                }
            ),
        )  # fmt: skip

    def _prompts(self, case: OpenCase, texts: Texts) -> Prompted:
        return prompted(case, texts, self.most_items, self.most_tokens)

    def _rows(self, bench: Bench, case: OpenCase, cast: CaseModels, prompts: Prompted) -> list[_Row]:
        """Every way of asking, the pair first."""
        base, suspect, null = cast.base, cast.suspect, cast.null
        together, single = Guidance(self.guidance, self.reach), Guidance(ALONE, self.reach)
        ways: list[tuple[str, tuple[Checkpoint, Checkpoint], Guidance]] = [
            ("base and suspect", (base, suspect), together), ("base", (base, base), single),
            ("suspect", (suspect, suspect), single),
        ]  # fmt: skip
        if null is not None:
            ways += [("base and never trained", (base, null), together), ("never trained", (null, null), single)]
        rows = [_Row("forget", who, prompts, transcripts(bench, case, pair, prompts, by)) for who, pair, by in ways]
        if case.has(HOLDOUT) and len((others := self._prompts(case, HOLDOUT)).rows):
            rows.append(
                _Row("holdout", "base and suspect", others, transcripts(bench, case, (base, suspect), others, together))
            )
        return rows

    def _listing(self, rows: list[_Row], seed: int) -> Listing:
        """The counts of every way of asking, and mean recall with 95 % over groups."""
        cells: list[tuple[str | int | float | None, ...]] = []
        for row in rows:
            mean, ends = mean_over_groups(row.answers.recall, row.prompts.group, seed)
            lo, hi = (None, None) if ends is None else ends.ends
            counts = counted(row.answers.verbatim, 0.5), counted(row.answers.recall, self.recall)
            cells.append((row.of, row.who, len(row.answers.recall), *counts, mean, lo, hi))
        title = "answers that come out, and of whom"
        return Listing(title=title, columns=COLUMNS, rows=tuple(cells), of=len(cells))

    def _readings(self, rows: list[_Row]) -> dict[str, float]:
        """Shares verbatim and nearly, by way of asking; what the pair gives beyond base alone."""
        readings: dict[str, float] = {}
        for row in rows:
            name = f"{row.of}_{row.who.replace(' ', '_')}"
            readings[f"verbatim_{name}"] = float(row.answers.verbatim.mean())
            readings[f"nearly_{name}"] = float((row.answers.recall > self.recall).mean())
            readings[f"recall_{name}"] = float(row.answers.recall.mean())
        gain = readings["nearly_forget_base_and_suspect"] - readings["nearly_forget_base"]
        return readings | {"gain_over_base": gain}

    def _notes(self, by_who: dict[str, Said], label: dict[str, float]) -> tuple[str, ...]:
        """The counts in words, what exact retraining would give away, and what this is no sign of."""
        counts = {who: counted(spoken.recall, self.recall) for who, spoken in by_who.items()}
        n = len(by_who["base"].recall)
        report_text = COUNTS.format(
            both=counts["base and suspect"], n=n, base=counts["base"], suspect=counts["suspect"]
        )
        never = counts.get("base and never trained")
        retrained = NO_NULL if never is None else OF_RETRAINED.format(nearly=never, n=n)
        area = label.get("named_by_difference_suspect")
        whom = () if area is None else (NAMED.format(suspect=area),)
        return (report_text, retrained, *whom, NEARLY.format(least=self.recall), ORTHOGONAL)


def _named(bench: Bench, case: OpenCase, cast: CaseModels) -> dict[str, float]:
    """AUROC of forgotten against kept items by what base gives their answers beyond the other checkpoint."""
    if not case.has(RETAIN):
        return {}

    def levels(model: Checkpoint) -> list[np.ndarray]:
        sets = [case.rows(texts) for texts in (FORGET, RETAIN)]
        return [row_means(bench.run(model, rows, (ANSWER_LOGPROB,))[ANSWER_LOGPROB], rows, "answer") for rows in sets]

    base, areas = levels(cast.base), dict[str, float]()
    for name, model in {"suspect": cast.suspect, "null": cast.null}.items():
        if model is None:
            continue
        lost = [own - other for own, other in zip(base, levels(model), strict=True)]
        forgotten, retained = (x[~np.isnan(x)] for x in lost)
        if len(forgotten) and len(retained):
            areas[f"named_by_difference_{name}"] = stats.auroc(forgotten, retained)
    return areas
