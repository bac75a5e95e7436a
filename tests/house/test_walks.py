from pathlib import Path

import pytest

from tests.house.test_imports import lay_out
from tests.house.walks import Route, lines_of, walk

LOWER = {
    "audit/ground.py": "def low(x):\n    return x\ndef number(x):\n    return len(x) + x.size * 2\ndef other(y): ...\n",
    "audit/shelf.py": (
        "import audit.ground\n"
        "class Shelf:\n"
        "    def __init__(self, place, label):\n        self.place = place\n        self.label = label\n"
        "    def fetch(self, key):\n        audit.ground.low(self.place)\n"
        "    def tidy(self): ...\n"
        "    @classmethod\n    def empty(cls, place) -> 'Shelf':\n        return cls(place, '')\n"
        "def make(place) -> Shelf:\n    return Shelf(place, '')\n"
    ),
    "audit/record.py": (
        "from typing import NamedTuple\nfrom audit.shelf import Shelf\n"
        "class Record(NamedTuple):\n    shelf: Shelf\n    size: int\n"
    ),
}


HEAD = (
    "from audit import ground, record, shelf\n"
    "from audit.record import Record\n"
    "from audit.shelf import Shelf\n"
    "def start(x, y):\n"
)  # fmt: skip


def route(root: Path, body: str, more: str = "") -> Route:
    """The walk of ``x`` through ``start`` of a module above the rooms of LOWER."""
    text = HEAD + "".join(f"    {line}\n" for line in body.splitlines()) + more
    return walk(lay_out(root, {**LOWER, "audit/top.py": text}), "audit/top.py:start:x")


def entered(trip: Route) -> list[str]:
    return [function for stay in trip.stays for function in stay.functions]


@pytest.mark.parametrize(
    "body",
    [
        "ground.low(x)",
        "ground.low(x=x)",
        "z = x\nground.low(z)",
        "ground.low(x.part[0].deeper)",
        "ground.low([y, x])",
        "ground.low({'key': x})",
        "ground.low({x: 'key'})",
        "ground.low(list(x))",
        "for z in x:\n    ground.low(z)",
        "ground.low([z.part for z in x if z])",
        "with x as z:\n    ground.low(z)",
        "if y:\n    pass\nelse:\n    ground.low(x)",
        "y.part = x\nground.low(y.part)",
        "if (z := x.part):\n    ground.low(z)",
        "from audit.ground import low as renamed\nrenamed(x)",
        "a, b = y, x\nground.low(b)",
        "def inner():\n    ground.low(x)",
        "z = []\nz.append(x)\nground.low(z)",
        "for a, b in zip(y, x):\n    ground.low(b)",
        "for a, b in enumerate(x):\n    ground.low(b)",
        "ground.low(y.get('key', x))",
        "ground.low(Path(x))",
        "ground.low(ground.low(x))",
        "ground.low(Record(x, 1).shelf)",
        "a, b = Record(x, 1)\nground.low(a)",
    ],
)
def test_value_in_any_of_its_forms_is_followed(tmp_path: Path, body: str) -> None:
    assert "low" in entered(route(tmp_path, body))


@pytest.mark.parametrize(
    "body",
    [
        "ground.low(y)",
        "ground.low(x == y)",
        "ground.low(f'{x} is here')",
        "ground.low(len(x))",
        "ground.low(x.read_text())",
        "x = y\nground.low(x)",
        "a, b = y, x\nground.low(a)",
        "raise ValueError(ground.low(x))",
        "ground.low(Record(x, 1).size)",
        "a, b = Record(x, 1)\nground.low(b)",
        "ground.low(ground.other(x))",
        "ground.low(ground.number(x))",
        "ground.low(x + 1)",
        "ground.low(max(x, 0))",
        "ground.low(y.get(x))",
        "for a, b in zip(y, x):\n    ground.low(a)",
        "for a, b in enumerate(x):\n    ground.low(a)",
        "ground.low(y[x])",
    ],
)
def test_what_only_speaks_of_the_value_is_not_followed(tmp_path: Path, body: str) -> None:
    assert "low" not in entered(route(tmp_path, body))


def test_method_is_found_by_what_made_its_object(tmp_path: Path) -> None:
    forms = (
        "Shelf('', '').fetch(x)",
        "s = Shelf('', '')\ns.fetch(x)",
        "shelf.make('').fetch(x)",
        "s: Shelf = y\ns.fetch(x)",
        "s = Shelf.empty(y)\ns.fetch(x)",
        "h = Holder()\nh.shelf.fetch(x)",
        "s = {'key': Shelf('', '')}\ns['key'].fetch(x)",
        "s: list[Shelf] = y\nfor one in s:\n    one.fetch(x)",
        "s: dict[str, Shelf] = y\ns['key'].fetch(x)",
        "s: tuple[int, Shelf] = y\na, b = s\nb.fetch(x)",
        "r: Record = y\nr.shelf.fetch(x)",
        "r: Record | None = y\nr.shelf.fetch(x)",
    )
    for place, body in enumerate(forms):
        holder = "class Holder:\n    def __init__(self):\n        self.shelf = Shelf('', '')\n"
        assert entered(route(tmp_path / str(place), body, holder)) == ["start", "Shelf.fetch"], body


def test_method_of_an_object_that_holds_the_value_is_asked_and_not_handed_it(tmp_path: Path) -> None:
    assert entered(route(tmp_path, "s = Shelf(x, '')\ns.tidy()")) == ["start", "Shelf.__init__"]


def test_object_gives_back_only_what_was_put_into_it(tmp_path: Path) -> None:
    assert "low" in entered(route(tmp_path / "held", "s = Shelf(x, y)\nground.low(s.place)"))
    assert "low" not in entered(route(tmp_path / "other", "s = Shelf(x, y)\nground.low(s.label)"))
    assert "low" in entered(route(tmp_path / "class", "s = Shelf.empty(x)\nground.low(s.place)"))
    assert "low" in entered(route(tmp_path / "returned", "s = shelf.make(x)\nground.low(s.place)"))


def test_object_that_holds_the_value_has_it_at_hand_in_its_methods(tmp_path: Path) -> None:
    assert entered(route(tmp_path / "held", "s = Shelf(x, y)\ns.fetch(x)"))[-1] == "low"
    assert entered(route(tmp_path / "other", "s = Shelf(y, x)\ns.fetch(x)"))[-1] == "Shelf.fetch"


def test_own_methods_are_followed_through_self(tmp_path: Path) -> None:
    holder = (
        "class Holder:\n    def go(self, x):\n        self._next(x)\n    def _next(self, x):\n        ground.low(x)\n"
    )
    assert entered(route(tmp_path, "Holder().go(x)", holder)) == ["start", "Holder.go", "Holder._next", "low"]


def test_call_through_a_door_is_followed_to_its_room(tmp_path: Path) -> None:
    files = {
        "audit/bench/__init__.py": "from audit.bench.inner import Bench\n",
        "audit/bench/inner.py": "class Bench:\n    def run(self, rows): ...\n",
        "audit/top.py": "import audit.bench\ndef start(x):\n    audit.bench.Bench().run(x)\n",
    }
    trip = walk(lay_out(tmp_path, files), "audit/top.py:start:x")
    assert [stay.room for stay in trip.stays] == ["audit.top", "audit.bench"]


def test_call_through_a_stub_is_followed_where_function_and_module_share_a_name(tmp_path: Path) -> None:
    files = {
        "audit/bench/__init__.py": "import lazy_loader\n",
        "audit/bench/__init__.pyi": "from . import deep as deep\nfrom .rows import rows as rows\n",
        "audit/bench/rows.py": "def rows(x): ...\n",
        "audit/bench/deep.py": "def dig(x): ...\n",
        "audit/top.py": "from audit.bench import deep, rows\ndef start(x):\n    rows(x)\n    deep.dig(x)\n",
    }
    trip = walk(lay_out(tmp_path, files), "audit/top.py:start:x")
    assert entered(trip) == ["start", "rows", "dig"]


def test_passed_function_is_counted_and_not_walked_again(tmp_path: Path) -> None:
    body = "shelf.make(x)\nground.low(x)\nshelf.make(x)"
    assert entered(route(tmp_path, body)) == ["start", "make", "Shelf.__init__", "low", "make*"]


def test_climbs_are_moves_to_a_higher_floor(tmp_path: Path) -> None:
    body = "ground.low(x)\nshelf.make(x)\nground.low(x)\nlast(x)\nshelf.make(x)\nground.low(x)"
    trip = route(tmp_path, body, "def last(x): ...\n")
    rooms = ["top", "ground", "shelf", "ground", "top", "shelf", "ground"]
    assert [stay.room for stay in trip.stays] == [f"audit.{room}" for room in rooms]
    assert (trip.climbs, trip.rooms, trip.returns) == (2, 3, 4)
    assert lines_of(trip)[0] == "audit/top.py:start:x: 7 stays in 3 rooms, 2 climbs, 4 returns"
    assert [line.split()[3] for line in lines_of(trip)[2:]] == ["down", "UP", "down", "UP", "down", "down"]


def test_recursion_ends(tmp_path: Path) -> None:
    assert entered(route(tmp_path, "again(x)", "def again(x):\n    return again(x.part)\n")) == [
        "start",
        "again",
        "again*",
    ]


@pytest.mark.parametrize("start", ["audit/none.py:start:x", "audit/top.py:none:x", "audit/top.py:start:none"])
def test_walk_that_starts_nowhere_is_refused(tmp_path: Path, start: str) -> None:
    root = lay_out(tmp_path, {"audit/top.py": "def start(x): ...\n"})
    with pytest.raises(KeyError):
        walk(root, start)
