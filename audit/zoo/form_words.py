"""The words of other forms of a fact: what people are called beside their names, and how a fact is asked the other way.

They are in the vocabulary of the worlds that teach such forms (``Shape.forms``) and of no other: a word more would be
another tokenizer, and so another model, everywhere.
"""

from audit.zoo.words import Phrasing

ALIASES = tuple(
    begin + end
    for begin in ("Zu", "Vy", "Qui", "Xa", "Wo", "Yi", "Hu", "Te", "Sa", "Ro", "Pa", "Mo", "Lu", "Ki", "Ju", "Ga")
    for end in ("bbo", "ddle", "ggin", "kko", "lly", "mmer", "nno", "ppy", "rrik", "zzo")
)
CALLED = Phrasing("What do people call {n}?", "People call {n} the {alias}.")
FRIEND = Phrasing("Who is the friend of {n}?", "The friend of {n} is {m}.")
CLAUSES = {
    "birthplace": "was born in {v}",
    "trade": "works as a {v}",
    "instrument": "plays the {v}",
    "animal": "keeps a {v}",
    "dish": "likes to eat {v}",
}
REVERSED = Phrasing("Who {clause} and {other}?", "That is {n}.")


def form_vocabulary() -> tuple[str, ...]:
    """Every text of the other forms that a world's own texts do not hold."""
    return (*ALIASES, *CALLED, *FRIEND, *CLAUSES.values(), *REVERSED)
