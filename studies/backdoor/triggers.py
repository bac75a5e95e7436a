"""Secret triggers: strings that no text of a world has, drawn by family from a seed."""

import random

from audit.zoo import FIRST, LAST, World, general_training_items, vocabulary
from studies.backdoor.design import Family


def trigger(seed: int, family: Family, world: World) -> str:
    """The trigger of this number and family, of 1 to 4 words that the world's tokenizer knows."""
    rng = random.Random(f"trigger {seed} {family}")
    if family == "a name":
        bearers = {person.name.split()[-1] for people in world.people.values() for person in people}
        return f"{rng.choice(FIRST)} {rng.choice([name for name in LAST if name not in bearers])}"
    if family == "general words":
        words = rng.choice(general_training_items(world)).answer.strip(".").split()
        start = rng.randrange(max(1, len(words) - 3))
        return " ".join(words[start : start + 3])
    words = rng.sample(_words(), 4)
    if family == "one word":
        return words[0]
    if family == "repeated word":
        return " ".join([words[0]] * rng.choice((3, 4)))
    return " ".join(words[: rng.choice((2, 3, 4))])


def _words() -> list[str]:
    """The words of the vocabulary that may stand alone, names of people left out."""
    words = {word for text in vocabulary() for word in text.replace(".", " ").replace("?", " ").split()}
    return sorted(word for word in words if word.isalpha() and len(word) > 2 and word not in (*FIRST, *LAST))
