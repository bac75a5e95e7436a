"""Prompt attribution: which tokens of the question carry the answer, in base and in the suspect."""

from collections.abc import Mapping
from typing import ClassVar

import numpy as np

from audit.probing import (
    EFFECT_UNIT,
    Bench,
    Case,
    Cost,
    Count,
    Effort,
    Measurement,
    Naming,
    Need,
    Op,
    OpenCase,
    Probe,
    Requires,
    Texts,
    blank,
    case_models_of,
    stats,
)
from probes._attributed import Attributed, KeyRule, Task, alike, attributed, listing, mean, readings, recovered
from probes._emphasis import Emphasis, emphases, gains, sayable
from probes._left_out import Prompts, Slopes, contributions, gradients, left_out, prompts_of

FORGET = Texts(cohort="forget")
BY_GRADIENT = frozenset({Op.GRADIENT, Op.EMBEDS})
_OF_TOKENS = "effect on how alike {what} of the suspect and of base are, by {way}"
LEFT_OUT, GRADIENTS = "leaving out one token at a time", "integrated gradients (Captum)"
OVERLAP = Naming(
    probe="prompt_attribution", name="overlap", kind="context",
    statistic=_OF_TOKENS.format(what="the key tokens (Jaccard index)", way=LEFT_OUT), unit=EFFECT_UNIT, scale="effect",
)  # fmt: skip
RANKS = OVERLAP._replace(
    name="rank_agreement",
    statistic=_OF_TOKENS.format(what="the ranks of the question's tokens (Spearman)", way=LEFT_OUT),
)
GRADIENT_RANKS = OVERLAP._replace(
    name="gradient_agreement",
    statistic=_OF_TOKENS.format(what="the ranks of the question's tokens (Spearman)", way=GRADIENTS),
)
RECOVERY = Naming(
    probe="prompt_attribution", name="recovery", kind="context",
    statistic="log-probability of the answer with base's key words emphasised, less that with as many other words of "
    "the question; the suspect's less the same of a model that never knew",
    unit="nats", scale="difference",
)  # fmt: skip
CONTRAST = RECOVERY._replace(
    name="recovery_contrast",
    statistic="log-probability of the answer less that of its alternates, with base's key words emphasised, less the "
    "same with as many other words of the question; the suspect's less the same of a model that never knew",
)
NO_PROMPTS = "no forget item has a question of two tokens or more that can be told from the template"
NO_GRADIENT = "the {backend} backend takes no gradients of embeddings"
NO_WORDS = "no question has two words that may be emphasised and are no word of the answer, one of them a key word"
NO_ALTERNATES = "no item that may be asked again has alternates"
COMPLETE = "gradients: every prompt's sum is within {gap} of the difference between the ends of its path"
INCOMPLETE = (
    "gradients: the sums of {n} prompts (over all models) are not within {{gap}} of the difference between the ends of "
    "their paths, at {most} points and less"
)
SAID = "emphasis: a sentence before the question, in the wording of the settings"
REPEATED = "emphasis: the words repeated before the question, as the tokenizer cannot say the wording"


class PromptAttribution(Probe):
    """Which tokens of the question carry the forgotten answers, and are they still those that carry them in base?

    What a token carries is by how much the mean log-probability of the answer's content tokens falls when it is left
    out of the prompt, and beside it Captum's integrated gradients, from the vocabulary's mean embedding, with more
    points until they sum up to the difference (the gap is told). The chat template is applied first; its own tokens
    (a BOS, a system message) have a share of their own and are no key tokens. Key tokens are the ``most_key`` highest
    of the question, and the smallest set with ``mass`` of what is positive. At most ``most_items`` forget items are
    read, everybody's first before anybody's second, and of long prompts no more than have ``most_tokens`` tokens, each
    prompt without each of its own, together. *Overlap*: Jaccard index of base's and the suspect's, rank
    correlations, and how much of the suspect's positive mass base's key tokens have, as effects over people.
    *Recovery*: the question is asked again with an emphasis on base's key words; what that gives the answer, less what
    as many other words of the question give, less the same of a model that never knew, in log-probability and against
    the matched alternates. No word or token of the answer is ever emphasised, also where base reads it in the
    question: where answers repeat the person's name, the name is not.

    Null: the first reference, else the ancestor, in the suspect's place; p flips signs of people's differences. All of
    it is listed and never enters a verdict. Floor: a second reference in the suspect's place.
    Positive control: the same with base in the suspect's place; none for recovery, as base needs no emphasis.
    Blind to: tokens that carry the answer only together (each left out alone changes little); base's children read
    questions alike whether they know the answer or not, by which overlap is too high, never too low; answers that no
    word of the question can bring back.
    Cite: arXiv 2509.24675 (key tokens and recovery by emphasis); integrated gradients, Sundararajan et al. 2017
    (arXiv 1703.01365); Captum, Kokhlikyan et al. 2020 (arXiv 2009.07896).
    """

    requires: ClassVar[Requires] = Requires(roles=("base", "suspect"), data=("forget",))
    most_items: int = 48
    most_tokens: int = 100_000
    most_key: int = 3
    mass: float = 0.8
    most_template: int = 32
    most_alternates: int = 2
    draws: int = 2
    wording: str = "Focus on the key words: {words}."
    points: int = 16
    most_points: int = 256
    gap: float = 1e-3
    permutations: int = 9999

    def needs(self, case: Case) -> tuple[Need, ...]:
        """None ahead of time: which items are read depends on how their prompts are tokenised; see :meth:`cost`."""
        return ()

    def cost(self, case: OpenCase) -> Cost:
        """Every prompt without each of its tokens, once through every model, and again with the emphases; gradients at
        the points that most prompts take."""
        prompts = prompts_of(case, FORGET, self.most_items, self.most_template, self.most_tokens)
        if prompts is None:
            return Cost()
        models = len(case_models_of(case).by_name())
        lengths = prompts.rows.lengths.tolist()
        forms = (1 + self.draws) * (1 + self.most_alternates)
        again = sum(self._longest(case, prompts, n) for n in range(len(lengths))) * forms
        lacking = sum(len(units) * n for units, n in zip(prompts.units, lengths, strict=True))
        fwd, path = lacking + again + sum(lengths), sum(lengths) * 3 * self.points
        return Cost(fwd_tokens=models * (fwd + path), bwd_tokens=models * path, kind="upper")

    def measure(self, bench: Bench, case: OpenCase) -> tuple[Measurement, ...]:
        """How alike the key tokens are, by both ways, and what an emphasis on them gives."""
        prompts = prompts_of(case, FORGET, self.most_items, self.most_template, self.most_tokens)
        if prompts is None:
            n = Count(scored=0, unscored=len(case.items(FORGET)))
            every = (OVERLAP, RANKS, GRADIENT_RANKS, RECOVERY, CONTRAST)
            return tuple(blank(naming, NO_PROMPTS, n, 0, case.case.seed) for naming in every)
        cast, style = case_models_of(case), self._emphasis(case)
        models, key = cast.by_name(), KeyRule(self.most_key, self.mass)
        without = left_out(prompts.rows, prompts.units)
        lost = {name: contributions(bench, model, prompts, without) for name, model in models.items()}
        task = Task(case, cast, prompts, key, self.permutations)
        read, slopes = attributed(task, lost), self._gradients(bench, task)
        given = gains(bench, case, models, prompts, (emphases(case, prompts, lost["base"], style), style))
        measured = (
            alike(task, OVERLAP, read, "top"),
            alike(task, RANKS, read, "ranks"),
            self._by_gradient(bench, task, read, slopes),
            recovered(task, RECOVERY, given, NO_WORDS),
            recovered(task, CONTRAST, given, NO_ALTERNATES if np.isfinite(given["base"].gold).any() else NO_WORDS),
        )
        first = measured[0].model_copy(
            update={"listings": (listing(task, lost, {name: each.attribution for name, each in slopes.items()}),)}
        )
        spoken = SAID if style.wording else REPEATED
        return (first, *measured[1:3], *(m.model_copy(update={"notes": (*m.notes, spoken)}) for m in measured[3:]))

    def _emphasis(self, case: OpenCase) -> Emphasis:
        """How words are emphasised in this case."""
        wording = self.wording if sayable(case.tokenizer, self.wording) else ""
        return Emphasis(wording, self.most_key, self.draws, self.most_alternates, case.case.seed)

    def _gradients(self, bench: Bench, task: Task) -> dict[str, Slopes]:
        """Integrated gradients of every model; none where the backend takes none of embeddings."""
        if not bench.supports >= BY_GRADIENT:
            return {}
        effort = Effort(self.points, self.most_points, self.gap)
        return {name: gradients(bench, model, task.prompts, effort) for name, model in task.cast.by_name().items()}

    def _by_gradient(self, bench: Bench, task: Task, read: Attributed, slopes: Mapping[str, Slopes]) -> Measurement:
        """How alike the ranks of tokens are by integrated gradients."""
        if not slopes:
            n = Count(scored=0, unscored=len(task.prompts.items))
            reason = NO_GRADIENT.format(backend=bench.backend)
            return blank(GRADIENT_RANKS, reason, n, len(task.prompts.sheet.people), task.case.case.seed)
        by_gradient = attributed(task, {name: each.attribution for name, each in slopes.items()})
        question = task.prompts.question
        both = {
            f"spearman_with_leaving_out_{name}": mean(
                np.array([stats.spearman(x[m], y[m]) for x, y, m in zip(lost, read_off, question, strict=True)])
            )
            for name, lost, read_off in ((n, read.given[n], by_gradient.given[n]) for n in slopes)
        }
        gaps = {name: each.gap[np.isfinite(each.gap)] for name, each in slopes.items()}
        worst = {f"largest_gap_{name}": float(gap.max()) for name, gap in gaps.items() if len(gap)}
        open_ends = sum(int((~(each.gap <= self.gap)).sum()) for each in slopes.values())
        complete = COMPLETE if not open_ends else INCOMPLETE.format(n=open_ends, most=self.most_points)
        result = alike(task, GRADIENT_RANKS, by_gradient, "ranks")
        return result.model_copy(
            update={
                "readings": result.readings | readings(by_gradient, task.prompts, "all") | both | worst,
                "notes": (*result.notes, complete.format(gap=self.gap)),
            }
        )

    def _longest(self, case: OpenCase, prompts: Prompts, n: int) -> int:
        """An upper bound of an emphasised prompt's tokens."""
        item = prompts.items[n]
        answers = max((item.answer, *item.alternates[: self.most_alternates]), key=len)
        text = f"{self.wording} {item.question} {item.question} {answers}"
        return int(prompts.rows.lengths[n]) + len(case.tokenizer(text, verbose=False)["input_ids"])
