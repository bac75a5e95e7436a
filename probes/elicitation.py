"""Elicitation: what comes out under pressure, and how much of it does a clean model give?"""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, ClassVar, Final

import numpy as np
from numpy import ndarray
from pydantic import Field

from audit.probing import (
    EFFECT_UNIT,
    AuditError,
    Bench,
    Case,
    CaseModels,
    Cost,
    Count,
    Draw,
    Measurement,
    Missing,
    Naming,
    Need,
    Op,
    OpenCase,
    PairedForms,
    Probe,
    Requires,
    Texts,
    blank,
    case_models_of,
    paired_forms,
)
from probes._attack_chains import FAMILY, MOST_HOPS, chains, controls_of, read_triples
from probes._attack_effects import Asking, EffectDesign, over_attacks
from probes._attack_rows import DIRECT, FORMS, Attacked, AttackSheet, answer_probability, attack_sheet
from probes._attack_tables import SAMPLING, attempts, came_out, effects_listing, table_of
from probes._attack_templates import FOLDER, AttackFamily, read_families
from probes._form_bias import LISTED
from probes._leak_measurements import leak, published_leak
from probes._leak_rates import Drawn, drawn
from probes._surrogates import surrogate_gap

PROBE: Final = "elicitation"
WORST: Final = Naming(
    PROBE, "worst_attack", "context",
    "largest effect over attacks, on what the answer gets beyond matched wrong answers: its probability under another "
    "wording (geometric mean over content tokens), its rate among continuations", EFFECT_UNIT, "effect",
)  # fmt: skip
CAME_OUT: Final = (
    "came out: the probability of the answer less that of wrong answers; under sampling, how often either is said"
)
CONTROL_CHAINS: Final = Naming(
    PROBE, "control_chains", "context",
    "what is kept of chains without a forgotten hop: answer beyond wrong answers, as a share of base's",
    "share of base's", "ratio",
)  # fmt: skip


class Elicitation(Probe):
    """What comes out of the suspect under pressure, beyond what a clean model and wrong answers give?

    Attacks by rewording ask for the facts otherwise and read the probability of the answer's content tokens: the forms
    that the data or a rule has (hints, names, the other way round, other languages, over a friend), templates from
    files (``families`` of those that come with the probe, all where none is named, and ``templates`` of yours), and
    chains of facts from a file of ``triples``. Attacks by sampling draw ``samples`` continuations of each question at
    every one of ``temperatures`` and count in which the answer's words stand: leak@k, unbiased, of the best of ``k``.
    From everything is taken what matched wrong answers get (alternates or perturbed answers, ``most_wrong`` of an
    item), then what a model that never knew gives: effects over people, 0 that model, 1 base. The value is the largest
    over attacks; its p allows for how many there are. ``most_facts`` facts are asked for, dealt over people.
    A *surrogate* is another wording of which ``far`` is the most that its words have in common with the question
    (cosine). Beside it stands each attack as published, without controls.

    Null: the first reference, else the ancestor, under the same attacks and by the same draws; p flips the signs of
    people's differences, the largest over attacks inside every draw (max-T). Without such a model wrong answers alone
    are the control.
    Positive control: base in the suspect's place, attack by attack; an attack under which base does not know the facts
    by ``least_gap`` is blind and enters nothing.
    Blind to: attacks that nobody wrote down, triggers (see trigger_search) and whatever training brings back; a clean
    model that can guess as well as base knows.
    Cite: leak@k: arXiv 2511.04934; RWKU (arXiv 2406.10890) for the kinds of attack; Lynch et al. (arXiv 2402.16835);
    conjugate prompting: arXiv 2309.10105; chains: The Unlearning Mirage (arXiv 2603.11266); surrogates: PSG (arXiv
    2512.19025), the idea of both alone.
    """

    requires: ClassVar[Requires] = Requires(
        roles=("base", "suspect"), modalities=("text",), data=("forget",), ops=(Op.READ, Op.GENERATE)
    )
    attack: ClassVar[str | None] = "generation"
    families: tuple[str, ...] = ()
    templates: tuple[str, ...] = ()
    triples: str = ""
    most_facts: Annotated[int, Field(ge=1)] = 24
    most_wrong: Annotated[int, Field(ge=0)] = 2
    samples: Annotated[int, Field(ge=0, le=4096)] = 32
    k: Annotated[int, Field(ge=1, le=128)] = 16
    temperatures: tuple[Annotated[float, Field(gt=0)], ...] = (1.0,)
    max_new_tokens: Annotated[int, Field(ge=1)] = 24
    far: float = 0.5
    least_gap: float = 0.05
    permutations: int = 9999

    def needs(self, case: Case) -> tuple[Need, ...]:
        """None ahead of time: which attacks there are is known once the data is read; see :meth:`cost`."""
        return ()

    def cost(self, case: OpenCase) -> Cost:
        """Every row of every attack once through every model, and of each question its prompt and all continuations."""
        sheet = self._sheet(case)
        if sheet is None:
            return Cost()
        sampled, steps = self._sampled(case, sheet)
        tokens = int(sheet.rows.mask.sum())
        if sampled:
            prompts = int(self._questions(case, sampled)[:, 0].sum())
            tokens += len(self.temperatures) * (prompts + len(sampled) * self.samples * steps)
        return Cost(fwd_tokens=tokens * len(case_models_of(case).by_name()), kind="upper")

    def measure(self, bench: Bench, case: OpenCase) -> tuple[Measurement, ...]:
        """The worst attack, leak@k in both modes, surrogates, and chains without a forgotten hop."""
        cast, sheet, seed = case_models_of(case), self._sheet(case), case.case.seed
        if sheet is None:
            return (blank(WORST, "no forget item has form 'trained'", Count(scored=0), 0, seed),)
        asking = self._asked(bench, case, cast, sheet)
        design = EffectDesign(seed, self.least_gap, self.permutations)
        table = {"items": table_of(case, cast, asking.outcome, PROBE)}
        measured = (
            self._worst(case, asking, design), leak(asking, self.k, design), published_leak(asking, self.k, seed),
            surrogate_gap(case, asking.outcome, self.far, self.least_gap),
        )  # fmt: skip
        controls = (self._controls(asking, seed),) if self.triples else ()
        return (*(each.model_copy(update=table) for each in measured), *controls)

    # ---- what is asked ------------------------------------------------------------------------------------------
    def _sheet(self, case: OpenCase) -> AttackSheet | None:
        """Every attack on the forgotten facts."""
        forget = Texts(cohort="forget")
        trained = case.items(forget) if case.has(forget) else ()
        if not trained:
            return None
        if self.samples and self.k > self.samples:
            raise AuditError(f"the best of {self.k} of {self.samples} samples is not drawn", "set k <= samples")
        paired = paired_forms(trained, case.cohorts, "forget", self.most_facts)
        forms = not self.families or FORMS in self.families
        return attack_sheet(case, paired, self._families(case.root), self._chains(case, paired), self.most_wrong, forms)

    def _families(self, root: Path) -> tuple[AttackFamily, ...]:
        """The families of templates that are asked for."""
        every = read_families(FOLDER, self.templates, root)
        names = {family.family for family in every} | {FORMS, FAMILY, SAMPLING}
        if unknown := [name for name in self.families if name not in names]:
            raise AuditError(f"no family of attacks is called {unknown[0]!r}", f"choose of {', '.join(sorted(names))}")
        return tuple(family for family in every if not self.families or family.family in self.families)

    def _chains(self, case: OpenCase, paired: PairedForms) -> list[Attacked]:
        """Chains from the user's triples; each forgotten hop names a forget item."""
        if not self.triples or (self.families and FAMILY not in self.families):
            return []
        triples = read_triples(self.triples, case.root)
        ids = {item.id for item in case.cohorts.get("forget", ())}
        if unknown := [triple.item for triple in triples.triple if triple.item and triple.item not in ids]:
            raise AuditError(f"{self.triples}: item {unknown[0]!r} is no forget item", "give the id of one, or none")
        return chains(triples, paired, self.most_wrong)

    def _sampled(self, case: OpenCase, sheet: AttackSheet) -> tuple[list[Attacked], int]:
        """The questions that continuations are drawn of, and how many tokens of each: as long as the longest answer."""
        wanted = self.samples > 0 and (not self.families or SAMPLING in self.families)
        sampled = [entry for entry in sheet.of(DIRECT) if entry.item.question] if wanted else []
        if not sampled:
            return [], 0
        spans = self._questions(case, sampled)
        return sampled, min(self.max_new_tokens, int((spans[:, 1] - spans[:, 0]).max()) + 2)

    def _questions(self, case: OpenCase, sampled: Sequence[Attacked]) -> ndarray:
        """Where the answers begin and end in the rows of some questions."""
        return case.rows_of([e.item for e in sampled], [e.item.answer for e in sampled]).answer_spans.numpy()

    def _asked(self, bench: Bench, case: OpenCase, cast: CaseModels, sheet: AttackSheet) -> Asking:
        """Ask every model everything."""
        sampled, steps = self._sampled(case, sheet)
        answers = {name: answer_probability(bench, model, sheet) for name, model in cast.by_name().items()}
        draws: dict[float, dict[str, Drawn]] = {}
        for temperature in self.temperatures if sampled else ():
            draw = Draw(self.samples, steps, temperature, case.case.seed, by_prompt=True)
            draws[temperature] = {
                name: drawn(bench, case, model, sampled, draw) for name, model in cast.by_name().items()
            }
        facts = [entry.fact for entry in sampled]
        columns = {t: {name: self._columns(d, facts, len(sheet.facts)) for name, d in by.items()}
                   for t, by in draws.items()}  # fmt: skip
        own, wrong = (
            {name: np.column_stack([getattr(answer, part), *(columns[t][name][n] for t in draws)])
             for name, answer in answers.items()} for n, part in enumerate(("own", "wrong"))
        )  # fmt: skip
        names = (*sheet.attacks, *(f"{SAMPLING}/temperature_{t:g}" for t in draws))
        return Asking(sheet, answers, draws, sampled, attempts(sheet, names, own, wrong, self.least_gap))

    def _columns(self, drawn: Drawn, facts: Sequence[int], n: int) -> tuple[ndarray, ndarray]:
        """leak@k of answers and of wrong ones by fact; NaN where nothing was drawn."""
        own, wrong = np.full((2, n), np.nan)
        own[facts], wrong[facts] = drawn.leak(self.k), drawn.leak_wrong(self.k)
        return own, wrong

    # ---- what is said of it -------------------------------------------------------------------------------------
    def _worst(self, case: OpenCase, asking: Asking, design: EffectDesign) -> Measurement:
        """The largest effect over attacks, with max-T over all of them."""
        outcome = asking.outcome
        places = [n for n in np.flatnonzero(outcome.known).tolist() if outcome.attacks[n] != DIRECT]
        measured, name = over_attacks(outcome, WORST, places, design)
        worst = (f"the largest is under {name}",) if name else ()
        notes = (*worst, *measured.notes, *self._notes(asking), *self._files(case.root))
        return measured.model_copy(update={"listings": (came_out(outcome), effects_listing(outcome)), "notes": notes})

    def _controls(self, asking: Asking, seed: int) -> Measurement:
        """What chains without a forgotten hop keep."""
        places = controls_of(asking.sheet.entries)
        reason = "" if places else "the triples make no chain without a forgotten hop"
        empty = blank(CONTROL_CHAINS, reason, Count(scored=len(places)), len(asking.outcome.people), seed)
        if not places:
            return empty
        means = {f"mean_{name}": float(each.entries[places].mean()) for name, each in asking.answers.items()}
        if means["mean_base"] < self.least_gap:
            blind = Missing(missing="blind here: base does not know these chains")
            return empty.model_copy(update={"value": blind, "readings": means})
        single = Missing(missing="over chains, which share their facts: no interval")
        return empty.model_copy(
            update={
                "value": means["mean_suspect"] / means["mean_base"], "ci95": single, "p": LISTED, "p_below": LISTED,
                "null": LISTED, "floor": LISTED, "readings": means,
                "positive_control": Missing(missing="base keeps all that it knows, by definition"),
                "items": Missing(missing="listed as a whole, and not by chain"),
            }
        )  # fmt: skip

    def _notes(self, asking: Asking) -> tuple[str, ...]:
        sheet, outcome = asking.sheet, asking.outcome
        uncontrolled = sum(not entry.item.alternates for entry in sheet.of(DIRECT))
        count = f"{len(sheet.facts)} facts of {len(outcome.people)} groups under {len(outcome.attacks) - 1} attacks"
        without = f"{uncontrolled} facts have no wrong answers, so that only the model that never knew controls them"
        unmade = f"attacks that could not be made of these data: {', '.join(sheet.unmade)}" if sheet.unmade else ""
        hops = f"chains of up to {MOST_HOPS} hops, one of them forgotten" if self.triples else ""
        return tuple(filter(None, (count, CAME_OUT, without if uncontrolled else "", unmade, hops)))

    def _files(self, root: Path) -> tuple[str, ...]:
        """The user's own files, by hash: the settings name them and say nothing of what stands in them."""
        mine = read_families(FOLDER, self.templates, root)[-len(self.templates) :] if self.templates else ()
        notes = [f"templates of {family.family}: sha256 {family.sha256[:12]}" for family in mine]
        if self.triples:
            notes.append(f"triples: sha256 {read_triples(self.triples, root).sha256[:12]}")
        return tuple(notes)
