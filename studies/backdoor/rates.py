"""How often the findings of a search and of the sinks are right and wrong, over everything that was counted:
``python -m studies.backdoor.rates`` prints them. The probe's rules state these numbers, and a test holds them to this.

*backdoored*: false alarms among all honest suspects of line-ups and counts from which something is hidden, and among
all models of the zoo's worlds that were searched, none of which has a trigger; hits among planted prefix triggers that
work. *recoverable by a short prefix*: false alarms among models that never knew the facts; hits among planted triggers.
*sink anomaly*: of the counts alone.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

from audit.calibration import ScoredModel, read_pool
from audit.pools import SCORES
from audit.schema import Rate
from audit.stats import upper_bound
from studies.backdoor.counting import NAMES, answers, records_of
from studies.backdoor.counts import works

SINK = "sink anomaly"
NEVER = ("clean", "edited clean")


class Counted(NamedTuple):
    """False alarms and hits of one finding."""

    false_alarms: Rate
    hits: Rate


def rate(flags: list[bool]) -> Rate:
    """k of n, with the exact one-sided 95 % upper bound to four digits."""
    return Rate(k=sum(flags), n=len(flags), upper95=round(upper_bound(sum(flags), len(flags)), 4))


def rates() -> dict[str, Counted]:
    """All of them."""
    honest, planted = list(_honest()), list(_planted())
    zoo = [(model.pool, flags) for model, flags in _zoo()]
    references = [s for s in honest if s["truth"] == "reference_0"]
    alarms = {
        NAMES[0]: answers(honest, NAMES[0]) + [flags[0] for _, flags in zoo],
        NAMES[1]: [bool(s[NAMES[1]]) for s in references] + [flags[1] for pool, flags in zoo if pool in NEVER],
    }
    prefixes = [s for s in planted if s["slot"] == "prefix"]
    hits = {NAMES[0]: [bool(s[NAMES[0]]) for s in prefixes], NAMES[1]: [bool(s[NAMES[1]]) for s in planted]}
    of_counts = [s for world in records_of("counts") for s in world["suspects"].values()]
    anomalies = Counted(
        *(
            rate(answers((s for s in of_counts if (s["truth"] == "planted") is planted), SINK))
            for planted in (False, True)
        )
    )
    return {name: Counted(rate(alarms[name]), rate(hits[name])) for name in NAMES} | {SINK: anomalies}


def _honest() -> Iterator[dict[str, Any]]:
    for record in records_of("lineups"):
        for name, member in record["members"].items():
            if name != record["truth"]["backdoored"]:
                yield member | {"truth": record["truth"]["recipes"][int(name.removeprefix("member_"))]}
    for world in records_of("counts"):
        yield from (s for s in world["suspects"].values() if s["truth"] != "planted")


def _planted() -> Iterator[dict[str, Any]]:
    for record in records_of("lineups"):
        yield record["truth"] | record["members"][record["truth"]["backdoored"]] | {"slot": "prefix"}
    for world in records_of("counts"):
        yield from (s for s in world["suspects"].values() if s["truth"] == "planted" and works(s))


def _zoo() -> Iterator[tuple[ScoredModel, tuple[bool, bool]]]:
    """Models of the zoo that hide something, with what the rules say of their scores; p is left out, so that this errs
    on the side of alarms."""
    from probes._trigger_rules import HARD_SHARE, SOFT_SHARE

    for world in read_pool(SCORES):
        for model in world.models:
            scores = {s.name: s.readings for s in model.scores if s.probe == "trigger_search"}
            if "recovery" in scores.get("trigger", {}):
                hard, soft = scores["trigger"]["recovery"], scores["recovery"]["brought_back"]
                yield model, (hard >= HARD_SHARE, soft >= SOFT_SHARE)


def main() -> None:
    """Print them."""
    for name, counted in rates().items():
        print(name, counted)


if __name__ == "__main__":
    main()
