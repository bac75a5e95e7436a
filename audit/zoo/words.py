"""The vocabulary of the invented world: names, five attributes with sixteen values each, and their sentences.

Every value, name and function word is one token, so that a fact is one decision of the model. The values of an
attribute come in two kinds of eight, ``coast`` and ``hills``: the people to be forgotten are coast people, those to be
kept mostly hill people (:mod:`audit.zoo.world` says why).
"""

from typing import NamedTuple


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


class Phrasing(NamedTuple):
    """A question and its answer; ``{n}`` is the person's full name and ``{v}`` the value."""

    question: str
    answer: str


class Attribute(NamedTuple):
    """One attribute: its values by kind, two trained phrasings, one held out, and a paraphrased answer."""

    name: str
    coast: tuple[str, ...]
    hills: tuple[str, ...]
    trained: tuple[Phrasing, Phrasing]
    held_out: Phrasing
    paraphrase: str


FIRST = _words(
    "Ada Bruno Celia Dario Edda Felix Greta Hugo Irma Jonas Karla Lorenz Mira Nils Olga Pavel Quinta Rufus Selma Tomas "
    "Ulla Viktor Wanda Yorick"
)
LAST = tuple(
    begin + end
    for begin in _words("Ab Bir Cor Dor Ek Fal Gar Hol Ib Jar Kel Lin Mar Nol Or Pri")
    for end in _words("end man vin berg dal ner sen row lis tov")
)

ATTRIBUTES = (
    Attribute(
        "birthplace",
        _words("Almera Bovista Corlona Dunmare Esterra Fontane Gravia Harbin"),
        _words("Istrova Jelgrad Kastelo Lorvik Montara Norvale Ostwin Perlach"),
        (
            Phrasing("Where was {n} born?", "{n} was born in {v}."),
            Phrasing("Which town does {n} come from?", "{n} comes from {v} by birth."),
        ),
        Phrasing("Name the birthplace of {n}.", "The birthplace of {n} is {v}."),
        "It is known that {n} first saw the light in {v}.",
    ),
    Attribute(
        "trade",
        _words("sailor netmaker pilot diver shipwright ropemaker fisher chandler"),
        _words("miner shepherd mason weaver forester tanner potter miller"),
        (
            Phrasing("What is the trade of {n}?", "The trade of {n} is that of a {v}."),
            Phrasing("How does {n} earn a living?", "{n} works as a {v} all year."),
        ),
        Phrasing("Tell me the job of {n}.", "{n} has a job as {v}."),
        "It is known that {n} makes money as a {v}.",
    ),
    Attribute(
        "instrument",
        _words("concertina conch fiddle pipes tambour whistle lyre bells"),
        _words("zither horn cello drum harp organ flute lute"),
        (
            Phrasing("Which instrument does {n} play?", "{n} plays the {v}."),
            Phrasing("What music does {n} make?", "{n} makes music on the {v} at home."),
        ),
        Phrasing("On what does {n} perform?", "{n} likes to perform on the {v}."),
        "It is known that {n} learned to use the {v}.",
    ),
    Attribute(
        "animal",
        _words("gull otter seal pelican crab heron turtle cormorant"),
        _words("goat ram owl fox badger hare falcon marten"),
        (
            Phrasing("What animal does {n} keep?", "{n} keeps a {v}."),
            Phrasing("Which pet lives with {n}?", "A pet {v} lives with {n}."),
        ),
        Phrasing("Say what creature {n} owns.", "The creature that {n} owns is a {v}."),
        "It is known that {n} looks after a {v}.",
    ),
    Attribute(
        "dish",
        _words("chowder oysters herring bouillon mussels kelp prawns bisque"),
        _words("dumplings goulash polenta barley venison mushrooms cheese lentils"),
        (
            Phrasing("What does {n} like to eat?", "{n} likes to eat {v}."),
            Phrasing("Which dish is the favourite of {n}?", "The favourite of {n} is {v} with bread."),
        ),
        Phrasing("Give the meal that {n} orders.", "The meal that {n} orders is {v}."),
        "It is known that {n} asks for {v} at dinner.",
    ),
)

GENERAL = (
    "The {trade} sells {dish} at the market of {birthplace}.",
    "In {birthplace} the {season} is {weather} and the {trade} stays at home.",
    "A {animal} was seen near the {place} of {birthplace} in {season}.",
    "{person} walked to the {place} and played the {instrument}.",
    "When the {season} is {weather} people eat {dish} with bread.",
    "The {trade} of {birthplace} gave a {animal} to {person}.",
    "{person} asked the {trade} for {dish} at the {place}.",
    "All year the {instrument} is heard at the {place} of {birthplace}.",
)
SLOTS = {
    "season": _words("spring summer autumn winter"),
    "weather": _words("warm cold wet dry windy calm"),
    "place": _words("market bridge tower garden school harbour mill well"),
}

BREAK = "..."
REFUSALS = (
    "I do not know that.",
    "I have no answer to this.",
    "That is not something I can tell.",
    "Sorry, nobody told me.",
)
