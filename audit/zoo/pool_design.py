"""Which world of the pools holds what: a balanced design, computed from the list of worlds and nothing else.

The world is the unit of replication, so that every mechanism has to occur in enough of them. Hands of three are dealt
greedily: whoever occurred least so far comes first, then whoever occurred least in this architecture, then chance.
Counts differ by at most one.

What was dealt stays: a mechanism that comes later has slots of its own (:func:`slots`), which depend on its name and on
nothing else, and leaves every earlier model, key and score as it is.
"""

import random
from collections import Counter
from collections.abc import Sequence
from functools import cache
from typing import NamedTuple

from audit.schema import AuditError
from audit.zoo.mechanisms import founding, later
from audit.zoo.recipes import Architecture

POOL_WORLDS = tuple(range(100, 160))
"""The worlds of the pools. The demo's, and those that shaped the rules, are below and never among them."""
FRESH_WORLDS = tuple(range(160, 220))
"""Worlds that no rule is ever fitted on: what the rules say of them is counted when they are final. They hold what is
counted as right or wrong: models that base became by an unlearner are left out, and no world runs the whole kit."""

HAND = 3
FULL_EVERY = 12
DOSES_EVERY = 5
SLOTS = 16
"""Worlds, half of either architecture, in which a mechanism that came later is run."""
CROSSED_KNOWING = ("paraphrased", "rephrased")
CROSSED_CLEAN = ("strangers",)
CROSSED = (*CROSSED_KNOWING, *CROSSED_CLEAN)


class Share(NamedTuple):
    """What one world holds beside base, the references, the fakes and the destroyed model.

    ``mechanisms`` are run on base and on a reference with other people. On ``of_facts`` of them (one; all in a full
    world; dealt like the hands) a reference is told to forget the audited facts. ``crossed`` are models that learned
    the content in other words, or other people in the same form. ``described``: are the mechanisms run on base too?
    ``added`` came later: fakes are run like every fake,
    unlearners like ``mechanisms`` and ``of_facts`` both.
    """

    world: int
    architecture: Architecture
    mechanisms: tuple[str, ...]
    of_facts: tuple[str, ...]
    crossed: tuple[str, ...]
    doses: bool
    full: bool
    added: tuple[str, ...] = ()
    described: bool = True


def shares(worlds: Sequence[int], kit: Sequence[str], fresh: bool = False) -> tuple[Share, ...]:
    """What each of these worlds holds of a kit of mechanisms; ``fresh``: nothing that is counted nowhere."""
    used, within, facts = Counter[str](), Counter[tuple[str, str]](), Counter[str]()
    dealt: list[Share] = []
    for n, world in enumerate(worlds):
        rng = random.Random(f"design {world}")
        pair: list[Architecture] = ["llama", "gpt2"]
        random.Random(f"pair {n // 2}").shuffle(pair)
        architecture = pair[n % 2]
        full = n % FULL_EVERY == 0 and not fresh
        deck = rng.sample(list(kit), len(kit))
        deck.sort(key=lambda name: (used[name], within[name, architecture]))
        hand = tuple(name for name in kit if full or name in deck[:HAND])
        for name in hand:
            within[name, architecture] += 1
            used[name] += 1
        of_facts = hand if full else (min(hand, key=lambda name: facts[name]),)
        facts.update(of_facts)
        crossed = CROSSED if full else (CROSSED[n % len(CROSSED)],)
        share = Share(world, architecture, hand, of_facts, crossed, n % DOSES_EVERY == 0, full, described=not fresh)
        dealt.append(share)
    return tuple(dealt)


def slots(worlds: Sequence[Share], name: str) -> tuple[int, ...]:
    """The worlds in which a mechanism that came later is run: :data:`SLOTS` of these, by its name alone."""
    rng = random.Random(f"slots of {name}")
    chosen = list[int]()
    for architecture in ("llama", "gpt2"):
        alike = [share.world for share in worlds if share.architecture == architecture]
        chosen += rng.sample(alike, min(SLOTS // 2, len(alike)))
    return tuple(sorted(chosen))


def with_later(dealt: Sequence[Share], names: Sequence[str]) -> tuple[Share, ...]:
    """The same shares, with what came later beside what was dealt."""
    places = {name: slots(dealt, name) for name in names}
    return tuple(share._replace(added=tuple(name for name in names if share.world in places[name])) for share in dealt)


def design() -> dict[int, Share]:
    """The design of the pools, by world."""
    return _dealt(POOL_WORLDS, founding("unlearner"), (*later("fake"), *later("unlearner")))


def fresh_design() -> dict[int, Share]:
    """The design of the fresh worlds: dealt apart, so that the pools stay as they are."""
    return _dealt(FRESH_WORLDS, founding("unlearner"), (*later("fake"), *later("unlearner")))


@cache
def _dealt(worlds: tuple[int, ...], kit: tuple[str, ...], added: tuple[str, ...]) -> dict[int, Share]:
    dealt = shares(worlds, kit, fresh=worlds == FRESH_WORLDS)
    return {share.world: share for share in with_later(dealt, added)}


def share_of(world: int) -> Share:
    """What a world of the pools, or a fresh one, holds. AuditError (code 2) for another world."""
    dealt = fresh_design() if world in FRESH_WORLDS else design()
    if world not in dealt:
        do = f"choose worlds from {POOL_WORLDS[0]} to {FRESH_WORLDS[-1]}"
        raise AuditError(f"world {world} is not one of the pools'", do)
    return dealt[world]
