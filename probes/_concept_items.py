"""Which items ask for the forgotten concept, which for others of its kind or of another, and how each of them asks.

Pure data rules: no model, no picture. A concept is what an item names as its ``attribute`` (else its key, else its
answer), compared as words are, whatever their case.
"""

from collections.abc import Iterable, Sequence
from typing import Final, Literal, NamedTuple

import numpy as np

from audit.probing import Cohort, Item, OpenCase, Texts, folded

Manner = Literal["open", "yes_no", "choice", "caption"]
MANNERS: Final[tuple[Manner, ...]] = ("open", "yes_no", "choice", "caption")
YES: Final = "yes"
NO: Final = "no"


class ConceptItems(NamedTuple):
    """The items of a case by what they ask of which picture.

    ``forget``: for the concept, of pictures that show it, in every form; ``in_domain`` and ``cross_domain``: retained,
    for other concepts of its kind and for those of other kinds; ``absent``: retained, for the concept itself, of
    pictures that do not show it; ``without``: one retained item of each picture that does not show it.
    """

    forget: tuple[Item, ...]
    in_domain: tuple[Item, ...]
    cross_domain: tuple[Item, ...]
    absent: tuple[Item, ...]
    without: tuple[Item, ...]

    def retained(self) -> tuple[tuple[str, tuple[Item, ...]], ...]:
        """The parts that should stay as they are, by name."""
        return ("in_domain", self.in_domain), ("cross_domain", self.cross_domain), ("absent", self.absent)


class Option(NamedTuple):
    """An answer that an item may be given: the whole of it, and the part that carries the concept."""

    answer: str
    key: str | None


def manner_of(item: Item) -> Manner:
    """How an item asks: by its answer where that is yes or no, else by the name of its form."""
    form = set(item.form.split("_"))
    if folded(item.answer.strip(" .!")) in (YES, NO) or form >= {"yes", "no"} or form & {"yesno", "polar"}:
        return "yes_no"
    if form & {"choice", "mcq", "options"}:
        return "choice"
    return "caption" if form & {"caption", "captions", "captioning", "describe", "description"} else "open"


def says_yes(item: Item) -> bool:
    """Is the answer of a yes-or-no question yes?"""
    return folded(item.answer.strip(" .!")) == YES


def concept_of(item: Item) -> str:
    """The concept that an item asks for, folded."""
    return folded((item.attribute or item.key or item.answer).strip(" ."))


def word_of(item: Item) -> str:
    """The concept's own word, as the data write it."""
    return (item.attribute or item.key or item.answer).strip(" .")


def concept_items(case: OpenCase) -> ConceptItems:
    """All items of the forget and the retain cohort, each in its part."""
    return parts_of_items(_every(case, "forget"), _every(case, "retain"))


def parts_of_items(forget: tuple[Item, ...], retain: tuple[Item, ...]) -> ConceptItems:
    """Items about the concept, and retained ones, each in its part."""
    concepts = {concept_of(item) for item in forget if item.attribute or manner_of(item) != "yes_no"}
    kin = {folded(option.key or option.answer) for item in forget for option in _others(item)} - concepts
    queries = {folded(item.question) for item in forget if manner_of(item) == "open"}

    def alike(item: Item) -> bool:
        return concept_of(item) in kin or (manner_of(item) == "open" and folded(item.question) in queries)

    absent = tuple(item for item in retain if concept_of(item) in concepts and _denies(item))
    others = [item for item in retain if concept_of(item) not in concepts]
    shown = {item.group for item in retain if concept_of(item) in concepts and not _denies(item)}
    first = {item.group: item for item in reversed(retain) if item.group not in shown}
    return ConceptItems(
        forget, tuple(filter(alike, others)), tuple(item for item in others if not alike(item)), absent,
        tuple(first[group] for group in sorted(first)),
    )  # fmt: skip


def _every(case: OpenCase, cohort: Cohort) -> tuple[Item, ...]:
    return tuple(item for form in case.forms_in(cohort) for item in case.items(Texts(cohort=cohort, form=form)))


def _denies(item: Item) -> bool:
    """Does it say that its picture does not show what it asks for?"""
    return manner_of(item) == "yes_no" and not says_yes(item)


def _others(item: Item) -> tuple[Option, ...]:
    """Other concepts that an item names beside its own; a yes-or-no question names none."""
    return () if manner_of(item) == "yes_no" else options_of(item)[1:]


def options_of(item: Item) -> tuple[Option, ...]:
    """The answers that an item is scored against: its own first, then its alternates, or the other of yes and no.

    An alternate that is one concept alone takes the place of the key in an answer that says more.
    """
    own = Option(item.answer, item.key)
    if manner_of(item) == "yes_no":
        other = NO if says_yes(item) else YES
        end = item.answer[len(item.answer.rstrip(" .!")) :]
        cased = other.capitalize() if item.answer[:1].isupper() else other
        return own, Option(f"{cased}{end}", cased)
    return (own, *(_alternate(item, n) for n in range(len(item.alternates))))


def answering(item: Item, option: Option) -> Item:
    """The item with one of its options as its own answer, where its alternates do not say their keys."""
    if option.answer == item.answer or item.alternate_keys or option.key is None:
        return item.model_copy(update={"key": option.key})
    return item.model_copy(update={"key": option.key, "answer": option.answer, "alternates": ()})


def _alternate(item: Item, n: int) -> Option:
    answer, key = item.alternates[n], item.alternate_keys[n] if n < len(item.alternate_keys) else None
    if key is not None and key != answer:
        return Option(answer, key)
    if item.key is None or item.key == item.answer or len(answer.split()) > len(item.key.split()):
        return Option(answer, key)
    return Option(item.answer.replace(item.key, answer), answer)


def drawn(items: Sequence[Item], most: int, seed: int) -> tuple[Item, ...]:
    """The items of at most ``most`` pictures, drawn by the seed, in their order."""
    groups = sorted({item.group for item in items})
    chosen = set(np.random.default_rng(seed).permutation(groups)[:most].tolist())
    return tuple(item for item in items if item.group in chosen)


def strangers(groups: Iterable[str], without: Sequence[Item], seed: int) -> dict[str, Item]:
    """For every picture one that does not show the concept, by lot: each as often as any other."""
    mine = sorted(set(groups))
    rng = np.random.default_rng(seed)
    lots = np.concatenate([rng.permutation(len(without)) for _ in range(-(-len(mine) // max(len(without), 1)))])
    return {group: without[lots[n]] for n, group in enumerate(mine)}
