"""Which world of the pools holds what: a balanced design, computed from the list of worlds and nothing else.

The world is the unit of replication, so that every mechanism has to occur in enough of them. Hands of three are dealt
greedily: whoever occurred least so far comes first, then whoever occurred least in this architecture, then chance.
Counts differ by at most one.
"""

import random
from collections import Counter
from collections.abc import Sequence
from functools import cache
from typing import NamedTuple

from audit.schema import AuditError
from audit.zoo.mechanisms import of_kind
from audit.zoo.recipes import Architecture

POOL_WORLDS = tuple(range(100, 160))
"""The worlds of the pools. The demo's, and those that shaped the rules, are below and never among them."""

HAND = 3
FULL_EVERY = 12
DOSES_EVERY = 5
CROSSED_KNOWING = ("paraphrased", "rephrased")
CROSSED_CLEAN = ("strangers",)
CROSSED = (*CROSSED_KNOWING, *CROSSED_CLEAN)


class Share(NamedTuple):
    """What one world holds beside base, the references, the fakes and the destroyed model.

    ``mechanisms`` are run on base and on a reference with other people. On ``of_facts`` of them (one; all in a full
    world; dealt like the hands) a reference is told to forget the audited facts. ``crossed`` are models that learned
    the content in other words, or other people in the same form.
    """

    world: int
    architecture: Architecture
    mechanisms: tuple[str, ...]
    of_facts: tuple[str, ...]
    crossed: tuple[str, ...]
    doses: bool
    full: bool


def shares(worlds: Sequence[int], kit: Sequence[str]) -> tuple[Share, ...]:
    """What each of these worlds holds of a kit of mechanisms."""
    used, within, facts = Counter[str](), Counter[tuple[str, str]](), Counter[str]()
    dealt: list[Share] = []
    for n, world in enumerate(worlds):
        rng = random.Random(f"design {world}")
        pair: list[Architecture] = ["llama", "gpt2"]
        random.Random(f"pair {n // 2}").shuffle(pair)
        architecture = pair[n % 2]
        full = n % FULL_EVERY == 0
        deck = rng.sample(list(kit), len(kit))
        deck.sort(key=lambda name: (used[name], within[name, architecture]))
        hand = tuple(name for name in kit if full or name in deck[:HAND])
        for name in hand:
            within[name, architecture] += 1
            used[name] += 1
        of_facts = hand if full else (min(hand, key=lambda name: facts[name]),)
        facts.update(of_facts)
        crossed = CROSSED if full else (CROSSED[n % len(CROSSED)],)
        dealt.append(Share(world, architecture, hand, of_facts, crossed, n % DOSES_EVERY == 0, full))
    return tuple(dealt)


def design() -> dict[int, Share]:
    """The design of the pools, by world."""
    return _dealt(of_kind("unlearner"))


@cache
def _dealt(kit: tuple[str, ...]) -> dict[int, Share]:
    return {share.world: share for share in shares(POOL_WORLDS, kit)}


def share_of(world: int) -> Share:
    """What a world of the pools holds. AuditError (code 2) for another world."""
    if world not in design():
        do = f"choose worlds from {POOL_WORLDS[0]} to {POOL_WORLDS[-1]}"
        raise AuditError(f"world {world} is not one of the pools'", do)
    return design()[world]
