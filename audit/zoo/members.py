"""The models of one world of the pools, and what each of them knows by how it was made.

The recipe of a world is drawn from its number: architecture, width, depth, length and speed of training, overlap of
subject matter, frequencies. Truth is never read off a model: it is whom a model was taught (:class:`Member`), and the
tests hold that against the rows it was trained on.
"""

import random
from typing import Literal, NamedTuple

from audit.calibration import Content
from audit.case import split
from audit.schema import TruthLabel
from audit.stats import significant
from audit.zoo import mechanisms, pool_design
from audit.zoo.recipes import Learning, Mix, Plan, Sizes, Zoo
from audit.zoo.world import Shape, items, make_world

DOSES = (2, 4, 8, 16)
SINGLE_PERSON_DOSE = "dose_one_audited"
PARTS = (1, 2, 4, 8, 16)
"""So many people, drawn by the world's seed from all, are known to the models ``some_<n>``."""
SHAPE = Shape(retain=36, background=32, general=300, strangers=16)
ANCESTOR, FORK, BATCH = (260, 6e-3), (320, 8e-3), 32
"""Steps and learning rates about which the worlds' recipes are drawn."""


class Drawn(NamedTuple):
    """The recipe of a world: what is drawn at random, and its share of the design."""

    share: pool_design.Share
    shape: Shape
    sizes: Sizes
    ancestor: tuple[int, float]
    fork: tuple[int, float]
    batch: int

    @property
    def world(self) -> int:
        """The world's number: the seed of everything in it."""
        return self.share.world

    def recorded(self) -> dict[str, str | int | float]:
        """The recipe as it stands in the file of scores."""
        dealt = {"mechanisms": self.share.mechanisms, "of_facts": self.share.of_facts, "crossed": self.share.crossed}
        share = {field: ",".join(names) for field, names in dealt.items()}
        share |= {"added": ",".join(self.share.added)} if self.share.added else {}
        counts = {"doses": int(self.share.doses), "full": int(self.share.full)}
        steps = {"ancestor_steps": self.ancestor[0], "fork_steps": self.fork[0], "batch": self.batch}
        rates = {"ancestor_lr": self.ancestor[1], "fork_lr": self.fork[1], "overlap": self.shape.overlap}
        frequencies = {"frequencies": ",".join(map(str, self.shape.frequencies))}
        return {**self.sizes._asdict(), **share, **counts, **steps, **rates, **frequencies}


class Member(NamedTuple):
    """One audited model: what was done to it, its pool, and which forget people its weights were taught.

    ``taught`` is before any edit: what an edited model still knows is known for fakes only, which leave it in place.
    """

    model: str
    mechanism: str
    pool: TruthLabel
    taught: tuple[str, ...]
    content: Content = "same"


class Population(NamedTuple):
    """A world's zoo, its members, and the forget people whom an audit measures: all of them."""

    zoo: Zoo
    members: tuple[Member, ...]
    audited: tuple[str, ...]


def draw(world: int) -> Drawn:
    """The recipe of a world of the pools. AuditError (code 2) for another world."""
    share, rng = pool_design.share_of(world), random.Random(f"recipe {world}")
    d = rng.choice((40, 48, 56))
    ffn = 2 * d if share.architecture == "llama" else 3 * d
    blocks = 3 if share.full else rng.choice((3, 4))  # a full world holds five times as many models
    sizes = Sizes(d, blocks, 4, ffn, share.architecture)
    frequencies = rng.choice(((1, 2, 4), (1, 2, 3), (2, 2, 3)))
    shape = SHAPE._replace(overlap=rng.choice((0.0, 0.05, 0.1)), frequencies=frequencies)

    def varied(steps: int, lr: float) -> tuple[int, float]:
        return round(steps * rng.uniform(0.9, 1.15)), significant(lr * 1.2 ** rng.uniform(-1, 1), 3)

    return Drawn(share, shape, sizes, varied(*ANCESTOR), varied(*FORK), BATCH)


def audited_people(drawn: Drawn) -> tuple[str, ...]:
    """The forget people in the audit's audit part. Doses are dealt by it, so that a world's models stay as they are."""
    parts = split(items(make_world(drawn.world, drawn.shape), "forget"), drawn.world)
    return tuple(dict.fromkeys(item.group for item in parts.audit))


def population(drawn: Drawn) -> Population:
    """Everything that a world's recipe asks for."""
    everyone = tuple(f"forget-{i:03d}" for i in range(drawn.shape.forget))
    entries = [*_roles(drawn, everyone), *_edited(drawn, everyone)]
    entries += _crossed(drawn, everyone) + (_doses(drawn, everyone) if drawn.share.doses else [])
    plans, members = tuple(plan for plan, _ in entries), tuple(member for _, member in entries if member is not None)
    return Population(Zoo(drawn.shape, drawn.sizes, plans, tuple(m.model for m in members)), members, everyone)


# ---- who is made how --------------------------------------------------------------------------------------------
_Entry = tuple[Plan, Member | None]


def _fork(drawn: Drawn, corpus: Mix | Literal["retain", "retain+forget"], order: int) -> Learning:
    return Learning(corpus, *drawn.fork, order, drawn.batch)


def _roles(drawn: Drawn, everyone: tuple[str, ...]) -> list[_Entry]:
    """The ancestor, base and the references; base and one reference are audited too, and never their own null."""
    language = Learning("language", *drawn.ancestor, 0, drawn.batch)
    base = Plan("base", "ancestor", _fork(drawn, "retain+forget", 1))
    references = [Plan(f"reference_{k}", "ancestor", _fork(drawn, "retain", 2 + k)) for k in range(3)]
    return [
        (Plan("ancestor", None, language), None),
        (base, Member("base", "base", "knowing", everyone)),
        (references[0], Member("reference_0", "retrain", "clean", ())),
        *((reference, None) for reference in references[1:]),
    ]


def _edited(drawn: Drawn, everyone: tuple[str, ...]) -> list[_Entry]:
    """What was made to forget: base and a reference, the forget people and others."""
    entries: list[_Entry] = []

    def add(name: str, parent: str, pool: TruthLabel, of: str, on: Literal["forget", "others"] = "forget") -> None:
        taught = everyone if parent == "base" else ()
        plan = Plan(name, parent, mechanisms.of_world(of, drawn.world), on=on)
        content: Content = "other people" if on == "others" else "same"
        entries.append((plan, Member(name, of, pool, taught, content)))

    added = {kind: [n for n in drawn.share.added if mechanisms.has_kind(n, kind)] for kind in ("unlearner", "fake")}
    for name in (*mechanisms.founding("fake"), *added["fake"]):
        add(name, "base", "knowing", name)
    for name in mechanisms.of_kind("destroyer"):
        add(name, "base", "destroyed", name)
    for name in (*drawn.share.mechanisms, *added["unlearner"]):
        if drawn.share.described:
            add(name, "base", "described", name)
        add(f"{name}_of_others", "reference_0", "clean", name, "others")
    for name in (*drawn.share.of_facts, *added["unlearner"]):
        add(f"{name}_of_facts", "reference_0", "edited clean", name)
    return entries


def _crossed(drawn: Drawn, everyone: tuple[str, ...]) -> list[_Entry]:
    """Content crossed with form: the facts in other words, and other people in the same form."""
    entries: list[_Entry] = []
    for n, name in enumerate(drawn.share.crossed):
        clean = name in pool_design.CROSSED_CLEAN
        mix = Mix(strangers=True) if clean else Mix(everyone, "paraphrased" if name == "paraphrased" else "rephrased")
        member = (
            Member(name, name, "clean", (), "other people")
            if clean
            else Member(name, name, "knowing", everyone, "other words")
        )
        entries.append((Plan(name, "ancestor", _fork(drawn, mix, 10 + n)), member))
    return entries


def _doses(drawn: Drawn, everyone: tuple[str, ...]) -> list[_Entry]:
    """References that were taught some of the forget people: half of each dose in the audit part, and one alone.

    Doses are nested, so that within a world a larger one knows whom a smaller one knows. Beside them nested parts of
    all forget people, wherever the audit's split puts them.
    """
    rng, audited = random.Random(f"doses {drawn.world}"), audited_people(drawn)
    inside = rng.sample(audited, len(audited))
    outside = rng.sample([name for name in everyone if name not in audited], len(everyone) - len(audited))
    taught = {f"dose_{n}": (*inside[: n // 2], *outside[: n // 2]) for n in DOSES if n // 2 <= len(outside)}
    taught[SINGLE_PERSON_DOSE] = (inside[0],)
    shuffled = random.Random(f"parts {drawn.world}").sample(everyone, len(everyone))
    taught |= {f"some_{n}": tuple(shuffled[:n]) for n in PARTS if n < len(shuffled)}
    return [
        (
            Plan(name, "ancestor", _fork(drawn, Mix(tuple(sorted(people))), 20 + n)),
            Member(name, "dose", "knowing", people),
        )
        for n, (name, people) in enumerate(taught.items())
    ]
