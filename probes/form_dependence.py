"""Form dependence: are the facts gone, or only the form in which they were asked?"""

from collections.abc import Mapping
from typing import ClassVar, Final

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from audit.probing import (
    EFFECT_UNIT,
    Bench,
    Case,
    Checkpoint,
    Cohort,
    Cost,
    Count,
    Design,
    Measurement,
    Missing,
    Naming,
    Need,
    OpenCase,
    Panel,
    Probe,
    Requires,
    Sides,
    Texts,
    assess,
    blank,
    case_models_of,
    stats,
)
from probes._form_bias import LISTED, Bias, bias_of
from probes._form_tables import BLIND, FormFacts, facts_by_form, listing_of, shared_people, table_of
from probes._forms import FormSheet, sheet_of
from probes._linked_facts import linked_counts, listed, unlinked_counts, value_of
from probes._redirection import redirection, redirects_of

PROBE: Final = "form_dependence"
REMAINING = Naming(
    PROBE, "remaining", "context",
    "largest effect over other forms than the trained one, on the probability of the content tokens (geometric mean; "
    "of a multiple choice the gold option's share, chance-corrected)", EFFECT_UNIT, "effect",
)  # fmt: skip
BIAS = Naming(
    PROBE, "bias", "context",
    "form-dependent bias: the drop of the trained form less that of the form that kept most, on facts asked in both",
    "difference of drops (0: all forms alike)", "difference",
)  # fmt: skip
REDIRECTION = Naming(
    PROBE, "redirection", "context",
    "what the values of one retained group gain in answers about forgotten people, over a model that never knew: of "
    "the group that gains most",
    "probability", "probability",
)  # fmt: skip
LINKED_KEPT = Naming(
    PROBE, "linked_kept", "context",
    "share of known facts that follow from a forgotten one and are kept", "share of facts", "probability",
)  # fmt: skip
NEIGHBOURS = Naming(
    PROBE, "neighbour_damage", "context",
    "drop of the probability of facts that should stay, relative to base", "share of base's probability", "other",
)  # fmt: skip
NO_FORMS: Final = "no form beside the trained one in which base knows the facts"
CHOICES: Final = "options of a choice in every cyclic turn, chance-corrected: (share - 1/k)/(1 - 1/k)"
EXACT: Final = (
    "kept or lost: more or less than half of what base gives a fact beyond a model that never knew; exact 95 % "
    "intervals over facts, of which one person has several"
)


class FormDependence(Probe):
    """Are the forgotten facts gone in every form, or only in the form that the edit was fitted on?

    The same facts are asked for in paired forms: as trained, and in every form that the data has (a file of forms, a
    form column) or that can be made by rule (cloze, paraphrase, multiple choice, first name or surname alone, a typo, a
    hint, spelled). Per form: what base, the suspect and a model that never knew give to the content tokens, and the
    drop D = (base - suspect)/base. The *form-dependent bias* is the drop of the trained form less that of the form that
    kept most, on the facts that are asked for in both. Beside it: other people's values in answers about the forgotten
    (a redirected concept tells somebody else's facts), facts that follow from a forgotten one and are kept, facts that
    should stay and are lost, and what happened to neighbours. All of it is listed and never judged. At most
    ``most_facts`` facts of a cohort are read, dealt over its people, ``most_choices`` of them as a multiple choice (in
    as many rows as options times options), and ``most_values`` values of others for each. ``least_gap`` is by how much
    base must exceed a model that never knew in a form; ``letters``: the options of a choice are lettered, and the
    letter is the answer.

    Null: the first reference, else the ancestor, on the same rows; p of what remains flips signs of people's
    differences. Without either a form counts as known from ``least_gap`` on.
    Positive control: base in the suspect's place, form by form; a form in which base does not know the facts is blind
    and enters nothing.
    Blind to: forms that neither the data nor a rule has; rows of one form may be hard for reasons of wording, which the
    comparison with base does not remove where the edit changed how the model reads such wording in general.
    Cite: ORT and ROCR (arXiv 2506.07795) for form-dependent bias, on geometric means as in their code and on joint
    probabilities as in their paper; FaithUn (arXiv 2502.19207) for linked and same-answer facts.
    """

    requires: ClassVar[Requires] = Requires(roles=("base", "suspect"), modalities=("text",), data=("forget",))
    most_facts: int = 64
    most_choices: int = 32
    most_values: int = 16
    least_gap: float = 0.05
    letters: bool = False
    permutations: int = 9999

    def needs(self, case: Case) -> tuple[Need, ...]:
        """None ahead of time: all forms go forward together, and which there are is known once the data is read; see
        :meth:`cost`."""
        return ()

    def cost(self, case: OpenCase) -> Cost:
        """Every row of every form, and forgotten facts with other people's values, once through every model; inputs
        that several rows share are read once."""
        forget, stayed = self._sheets(case)
        if forget is None:
            return Cost()
        redirects, models = (
            redirects_of(case, forget.paired.facts, self.most_values),
            len(case_models_of(case).by_name()),
        )
        parts = [(forget, models), (stayed, len(_of_stayed(case))), (redirects, models)]
        tokens = sum(n * int(part.rows.mask.sum()) for part, n in parts if part is not None)
        return Cost(fwd_tokens=tokens, kind="upper")

    def measure(self, bench: Bench, case: OpenCase) -> tuple[Measurement, ...]:
        """What remains, the bias, redirection, linked facts, and neighbours."""
        cast, (forget, stayed) = case_models_of(case), self._sheets(case)
        if forget is None:
            return (blank(REMAINING, "no forget item has form 'trained'", Count(scored=0), 0, case.case.seed),)
        facts = facts_by_form(bench, cast.by_name(), forget, self.least_gap)
        near = None if stayed is None else facts_by_form(bench, _of_stayed(case), stayed, self.least_gap)
        table = {"items": table_of(case, cast, facts, PROBE)}
        return (
            self._remaining(case, facts).model_copy(update=table),
            self._bias(case, facts).model_copy(update=table),
            redirection(bench, case, cast, forget.paired.facts, REDIRECTION, self.most_values),
            self._linked(case, facts, near),
            self._neighbours(case, near),
        )

    def _sheets(self, case: OpenCase) -> tuple[FormSheet | None, FormSheet | None]:
        """Forgotten facts in all forms; facts that should stay, of neighbours or of retained people."""
        near: Cohort = "neighbour" if case.has(Texts(cohort="neighbour")) else "retain"
        return (
            sheet_of(case, "forget", self.most_facts, min(self.most_choices, self.most_facts), self.letters),
            sheet_of(case, near, self.most_facts),
        )

    # ---- forms --------------------------------------------------------------------------------------------------
    def _remaining(self, case: OpenCase, facts: FormFacts) -> Measurement:
        """The largest effect over other forms, with the table of all."""
        seed, means = case.case.seed, facts.means
        places, people = shared_people(means["base"], [n for n in np.flatnonzero(facts.known).tolist() if n])
        empty = blank(REMAINING, NO_FORMS, facts.n, len(people), seed)
        empty = empty.model_copy(update={"listings": (listing_of(facts),), "notes": _notes(facts)})
        if not places:
            return empty
        sides = {name: Sides(mean[np.ix_(people, places)]) for name, mean in means.items()}
        null = sides.get("null", Sides(np.zeros_like(sides["base"].forget)))
        floors = tuple(side for name, side in sides.items() if name.startswith("floor"))
        panel = Panel(sides["suspect"], sides["base"], null, floors, tuple(facts.people[n] for n in people))
        assessed = assess(panel, Design(seed, self.least_gap, draws=self.permutations, name=REMAINING.key))
        measured = assessed.onto(empty)
        if assessed.layer < 0:
            return measured
        largest = f"the largest is of form {facts.sheet.forms[places[assessed.layer]]}"
        return measured.model_copy(update={"notes": (*measured.notes, largest)})

    def _bias(self, case: OpenCase, facts: FormFacts) -> Measurement:
        """The bias, by geometric means and by joint probabilities."""
        seed, forms, trained = case.case.seed, facts.sheet.forms, facts.drops[0]
        empty = blank(BIAS, NO_FORMS if facts.known[0] else BLIND, facts.n, len(facts.people), seed)
        geometric, joint = (_bias_of(facts, x, seed) for x in (facts.geometric, facts.joint))
        if geometric is None or joint is None or trained is None:
            return empty
        each = {f"bias_{forms[n]}": value for n, value in geometric.differences.items()}
        return empty.model_copy(
            update={
                "value": geometric.value, "ci95": geometric.ci95, "p": LISTED, "p_below": LISTED, "null": LISTED,
                "positive_control": Missing(missing="base is not edited: its bias is 0"), "floor": LISTED,
                "readings": {"drop_trained": trained.drop, "bias_of_joint_probability": joint.value, **each},
                "notes": (f"the form that kept most is {forms[geometric.form]}",
                          "95 %: bootstrap over people, simultaneous over forms (max-t)"),
            }
        )  # fmt: skip

    # ---- facts that hang together -------------------------------------------------------------------------------
    def _linked(self, case: OpenCase, facts: FormFacts, near: FormFacts | None) -> Measurement:
        """Both errors as counts: linked facts that are kept, facts that should stay and are lost."""
        linked = linked_counts(facts.sheet, facts.geometric, self.least_gap)
        answers = {value_of(fact.item) for fact in facts.sheet.paired.facts}
        lost = [] if near is None else unlinked_counts(near.sheet, near.geometric, answers, self.least_gap)
        k, n = sum(count.k for count in linked), sum(count.n for count in linked)
        reason = "" if n else "no linked form (two_hop, reversed) in which base knows a fact"
        empty = blank(LINKED_KEPT, reason, Count(scored=n), len(facts.people), case.case.seed)
        empty = empty.model_copy(update={"listings": listed((*linked, *lost)), "notes": (EXACT,)})
        if not n:
            return empty
        return empty.model_copy(
            update={
                "value": k / n, "ci95": stats.clopper_pearson(k, n), "p": LISTED, "p_below": LISTED, "null": LISTED,
                "floor": LISTED, "positive_control": Missing(missing="base keeps all that it knows, by definition"),
                "items": Missing(missing="in the table of all forms"),
                "readings": {"kept": float(k), "known": float(n)},
            }
        )  # fmt: skip

    def _neighbours(self, case: OpenCase, near: FormFacts | None) -> Measurement:
        """The drop of the trained form on people who should stay."""
        seed = case.case.seed
        if near is None:
            return blank(NEIGHBOURS, "no retained item has form 'trained'", Count(scored=0), 0, seed)
        neighbours = case.has(Texts(cohort="neighbour"))
        whom = "neighbours" if neighbours else "retained people: the case names no neighbours"
        empty = blank(NEIGHBOURS, BLIND, near.n, len(near.people), seed).model_copy(update={"notes": (whom,)})
        drop = near.drops[0]
        if drop is None or drop.blind:
            return empty
        each = {
            f"drop_{form}": other.drop for form, other in zip(near.sheet.forms, near.drops, strict=True)
            if other is not None and not other.blind
        }  # fmt: skip
        return empty.model_copy(
            update={
                "value": drop.drop, "ci95": drop.ci95, "p": LISTED, "p_below": LISTED, "null": LISTED, "floor": LISTED,
                "positive_control": Missing(missing="base is what it is compared with: its drop is 0"),
                "readings": each, "items": Missing(missing="listed by form, and not by fact"),
            }
        )  # fmt: skip


def _of_stayed(case: OpenCase) -> dict[str, Checkpoint]:
    """Who reads facts that should stay: references learned them too, so that the ancestor alone never knew them."""
    models = {"base": case.base, "suspect": case.suspect}
    return models | ({} if case.ancestor is None else {"null": case.ancestor})


def _notes(facts: FormFacts) -> tuple[str, ...]:
    sheet = facts.sheet
    count = f"{len(sheet.paired.facts)} facts of {len(facts.people)} groups, each in up to {len(sheet.forms)} forms"
    numbered = "forms by number: " + ", ".join(f"{n} {form}" for n, form in enumerate(sheet.forms))
    unknown = f"forms by rule that the tokenizer has no tokens for: {', '.join(sheet.unmade)}" if sheet.unmade else ""
    return tuple(filter(None, (count, CHOICES, numbered, unknown)))


def _bias_of(facts: FormFacts, models: Mapping[str, Float[ndarray, "fact form"]], seed: int) -> Bias | None:
    """The bias where base knows the trained form, between it and all other forms that base knows."""
    if not facts.known[0]:
        return None
    return bias_of(models, facts.person, len(facts.people), facts.known, seed)
