"""Pools whose truth is simulated: scores of models that were never trained, so that every rate can be known."""

from functools import cache
from typing import NamedTuple

import numpy as np

from audit.calibration import Score, ScoredModel, WorldScores
from audit.calibration.behaviour import Attested, Behaviour, attested
from audit.calibration.sources import Installed
from audit.pools.fit import CalibrationSet, Pooled, calibrate
from audit.schema import Control, Count, Domain, Interval, Kind, Measurement, Missing, Overall, TruthLabel

NONE = Missing(missing="simulated")
AUDITED = 16
DOMAIN = Domain(
    architecture="llama", parameters=200_000, blocks=4, d=64, vocabulary=500, forget_people=AUDITED, null="reference",
    references=2, control_effect=0.8,
)  # fmt: skip
KINDS: dict[str, Kind] = {"outside": "output", "inside": "causal", "lens": "decoding"}
INSTALLED = Installed(sources="0" * 64, packages={})
RECORDS = {
    probe: attested(Behaviour(probe=probe, version=1, settings={}, values={"effect, value": float(n)}), INSTALLED)
    for n, probe in enumerate((*KINDS, "usable"), 1)
}
"""How every simulated probe is said to behave."""
DIGESTS = {probe: record.digest for probe, record in RECORDS.items()}
ZOO = Pooled(
    "simulated", "residua calibrate", False, draws=10, records={record.digest: record for record in RECORDS.values()}
)
VISIBLE = {
    "head_edit": {"outside": 0.0, "inside": 1.0, "lens": 0.0},
    "last_layer": {"outside": 0.0, "inside": 0.9, "lens": 0.5},
    "logit_bias": {"outside": 0.0, "inside": 1.0, "lens": 1.0},
}
"""What the fakes of the zoo leave to be seen, by probe."""


QUIET = {"outside": 0.2}
"""Outputs of models that say nothing of a fact differ less than their states do."""


class World(NamedTuple):
    """How a world is simulated: the spread of effects between models, and how much of itself a knowing model shows."""

    noise: float = 0.05
    visible: float = 1.0
    doses: bool = True


def same(_: Attested) -> tuple[str, ...]:
    """Every probe behaves as it did."""
    return ()


def other(record: Attested) -> tuple[str, ...]:
    """No probe behaves as it did."""
    return tuple(f"{name}: {value:g} → {value + 1:g}" for name, value in record.behaviour.values.items())


def tail(effect: float) -> float:
    """The in-case p of an effect: no test is unsure here."""
    return 0.001 if effect > 0.1 else 0.5


def score(probe: str, effect: float, person: float, kind: Kind | None = None) -> Score:
    """One measurement with this effect and this largest person; the floor is small."""
    ci95 = Interval(lo=effect - 0.1, hi=effect + 0.1)
    return Score(
        probe=probe, name="effect", kind=kind or KINDS[probe], value=effect, ci95=ci95, p=tail(effect), p_below=0.5,
        floor=0.02, control_found=True, units=AUDITED, readings={"largest_person": person},
        overall=Overall(value=effect, ci95=ci95, floor=0.02),
    )  # fmt: skip


def simulated(number: int, how: World, domain: Domain = DOMAIN) -> WorldScores:
    """One world: clean models, fakes, doses, the edited clean, a destroyed one, and base."""
    rng = np.random.default_rng(number)
    models: list[ScoredModel] = []

    def add(name: str, mechanism: str, pool: TruthLabel, kept: int, seen: dict[str, float]) -> None:
        scores = tuple(
            score(
                p,
                seen[p] + QUIET.get(p, 1.0) * how.noise * rng.standard_normal(),
                2.0 + rng.standard_normal() + 10 * (seen[p] > 0.01),
            )
            for p in KINDS
        )
        model = ScoredModel(
            world=number, model=name, mechanism=mechanism, pool=pool, kept=kept, audited=AUDITED, domain=domain,
            scores=(score("usable", float(pool != "destroyed"), 0.0, "gate"), *scores),
            verdict="INVALID" if pool == "destroyed" else "",
        )  # fmt: skip
        models.append(model)

    nothing, everything = dict.fromkeys(KINDS, 0.0), dict.fromkeys(KINDS, 1.0)
    add("base", "base", "knowing", AUDITED, everything)
    add("reference_0", "retrain", "clean", 0, nothing)
    for mechanism in ("npo", "refusal"):
        add(f"{mechanism}_of_others", mechanism, "clean", 0, nothing)
        add(f"{mechanism}_of_facts", mechanism, "edited clean", 0, nothing)
    for fake, seen in VISIBLE.items():
        add(fake, fake, "knowing", AUDITED, {p: how.visible * v for p, v in seen.items()})
    for kept in (1, 2, 4, 8) if how.doses else ():
        add(f"dose_{kept}", "dose", "knowing", kept, {p: how.visible * kept / AUDITED for p in KINDS})
    add("destroyed", "destroyed", "destroyed", AUDITED, nothing)
    return WorldScores(
        world=number, recipe={}, stages_cpu_s={"train": 1.0}, behaviours={p: DIGESTS[p] for p in KINDS},
        models=tuple(models), versions=dict.fromkeys(KINDS, 1), settings={p: {} for p in KINDS},
    )  # fmt: skip


def measured(probe: str, effect: float, person: float, kind: Kind | None = None) -> Measurement:
    """The measurement behind such a score."""
    found = score(probe, effect, person, kind)
    return Measurement(
        probe=probe, name="effect", kind=found.kind, statistic="mean effect", value=effect, unit="effect",
        scale="effect", ci95=found.ci95, n=Count(scored=100), unit_of_replication="person", units=AUDITED, seed=0,
        p=tail(effect), p_below=0.5, null=NONE, positive_control=Control(value=1.0, ci95=NONE, found=True), floor=0.02,
        overall=found.overall, readings=found.readings, items=NONE,
    )  # fmt: skip


def gate(value: float) -> Measurement:
    """A utility gate."""
    return measured("usable", value, 0.0, "gate")


@cache
def made(worlds: int = 16, noise: float = 0.05) -> CalibrationSet:
    """A calibrated pool, made once a process; few draws, since no test here is about an interval's width."""
    return calibrate(pool(worlds, World(noise=noise)), ZOO)


def pool(worlds: int, how: World | None = None, first: int = 100) -> tuple[WorldScores, ...]:
    """Some worlds."""
    return tuple(simulated(first + n, how or World()) for n in range(worlds))


def as_asked(worlds: tuple[WorldScores, ...], names: dict[str, str], domain: Domain) -> tuple[WorldScores, ...]:
    """The same worlds, scored by probes of other names in another kind of audit."""
    found: list[WorldScores] = []
    for world in worlds:
        models = tuple(
            model.model_copy(
                update={
                    "domain": domain,
                    "scores": tuple(s.model_copy(update={"probe": names.get(s.probe, s.probe)}) for s in model.scores),
                }
            )
            for model in world.models
        )
        found.append(world.model_copy(update={"models": models}))
    return tuple(found)
