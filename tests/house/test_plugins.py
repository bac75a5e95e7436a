"""The folder is the registry: what counts as a plug-in, and what a file says of itself without being imported."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from audit.calibration.sources import sources_hash
from audit.plugins import describe, discover
from audit.schema import AuditError, Record

PLUGIN = '''"""A file."""

from typing import ClassVar

from audit.schema import Record


class {name}(Record):
    """Is it {name}?

    Null: none.
    """

    requires: ClassVar[dict] = dict(roles=("base", "suspect"), data=("forget",))
    version: ClassVar[int] = 3
    draws: int = 99
    free: str
'''


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An importable empty package named ``asked``."""
    folder = tmp_path / "asked"
    folder.mkdir()
    (folder / "__init__.py").write_text("")
    monkeypatch.syspath_prepend(tmp_path)
    yield folder
    for name in [name for name in sys.modules if name.split(".")[0] == "asked"]:
        del sys.modules[name]


def test_one_file_is_one_plugin_named_after_the_file(package: Path) -> None:
    (package / "second.py").write_text(PLUGIN.format(name="Second"))
    (package / "first.py").write_text(PLUGIN.format(name="First"))
    found = discover("asked", Record)
    assert list(found) == ["first", "second"]
    assert {name: cls.__name__ for name, cls in found.items()} == {"first": "First", "second": "Second"}


def test_underscore_files_are_no_plugins(package: Path) -> None:
    (package / "_shared.py").write_text("raise RuntimeError('imported')")
    assert discover("asked", Record) == {}
    assert describe("asked") == []


@pytest.mark.parametrize("source", ["x = 1\n", PLUGIN.format(name="A") + PLUGIN.format(name="B")], ids=["none", "two"])
def test_a_file_with_none_or_two_plugins_is_an_error_that_names_it(package: Path, source: str) -> None:
    (package / "odd.py").write_text(source)
    with pytest.raises(AuditError, match=r"odd\.py") as raised:
        discover("asked", Record)
    assert raised.value.code == 3
    with pytest.raises(AuditError, match=r"odd\.py"):
        describe("asked")


def test_an_imported_class_is_not_the_files_own(package: Path) -> None:
    (package / "first.py").write_text(PLUGIN.format(name="First"))
    (package / "second.py").write_text("from asked.first import First\n" + PLUGIN.format(name="Second"))
    assert discover("asked", Record)["second"].__name__ == "Second"


def test_a_description_comes_from_the_syntax_tree_and_imports_nothing(package: Path) -> None:
    (package / "loud.py").write_text(PLUGIN.format(name="Loud") + "\nraise RuntimeError('imported')\n")
    (found,) = describe("asked")
    assert (found.name, found.class_name, found.question, found.version) == ("loud", "Loud", "Is it Loud?", 3)
    assert [tuple(setting) for setting in found.settings] == [("draws", "int", "99"), ("free", "str", None)]
    assert found.requires == (("roles", "('base', 'suspect')"), ("data", "('forget',)"))
    assert "Null: none." in found.docstring


@pytest.mark.parametrize(("stated", "attack"), [("", None), ('    attack = "prefix"\n', "prefix"),
                                               ("    attack: ClassVar[str | None] = None\n", None)])  # fmt: skip
def test_a_description_says_which_attack_a_probe_declares_and_guesses_none_from_its_name(
    package: Path, stated: str, attack: str | None
) -> None:
    (package / "relearning_search.py").write_text(PLUGIN.format(name="Search") + stated)
    (found,) = describe("asked")
    assert found.attack == attack


def test_an_unknown_package_is_an_error() -> None:
    with pytest.raises(AuditError, match="no_such_package"):
        discover("no_such_package", Record)


@pytest.mark.thorough
def test_what_is_described_is_what_is_discovered() -> None:
    from audit.probing import Probe

    described = {found.name: found for found in describe("probes")}
    discovered = discover("probes", Probe)
    assert described.keys() == discovered.keys()
    for name, cls in discovered.items():
        assert described[name].class_name == cls.__name__
        assert {setting.name for setting in described[name].settings} == set(cls.model_fields)
        assert described[name].version == cls.version
        assert described[name].attack == cls.attack
    assert {name: found.attack for name, found in described.items() if found.attack} == {
        "concept_erasure": "picture", "elicitation": "generation", "filter_removal": "filter removal",
        "quantisation_recovery": "quantisation", "relapse": "relapse", "relearning_recovery": "relearning",
        "trigger_search": "prefix",
    }  # fmt: skip


HASHED = (
    '"""{doc}"""\n\nfrom {package}._shared import {what}\n\n\ndef f(x):\n    """{doc}"""\n    return {what} + {k}\n'
)


def hashed(package: Path, *, doc: str = "A.", k: int = 1, shared: str = "y = 1\n", deep: str = "z = 1\n") -> str:
    """The hash of a plug-in that imports ``_shared``, which imports ``_deep``."""
    (package / "one.py").write_text(HASHED.format(doc=doc, package="asked", what="y", k=k))
    (package / "_shared.py").write_text(f"from asked import _deep\n\n{shared}")
    (package / "_deep.py").write_text(deep)
    return sources_hash("asked", "one")


def test_docstrings_comments_and_layout_do_not_change_a_source_hash(package: Path) -> None:
    first = hashed(package)
    assert len(first) == 64
    assert hashed(package, doc="Another docstring.") == first
    assert hashed(package, shared="# a comment\ny = (\n    1\n)\n") == first


def test_code_of_the_file_and_of_every_shared_module_behind_it_changes_a_source_hash(package: Path) -> None:
    found = [hashed(package), hashed(package, k=2), hashed(package, shared="y = 2\n"), hashed(package, deep="z = 2\n")]
    assert len(set(found)) == 4


def test_another_plugin_and_an_unused_shared_module_do_not_change_a_source_hash(package: Path) -> None:
    first = hashed(package)
    (package / "other.py").write_text("x = 1\n")
    (package / "_unused.py").write_text("x = 1\n")
    assert sources_hash("asked", "one") == first


def test_a_source_hash_of_nothing_is_an_error(package: Path) -> None:
    with pytest.raises(AuditError, match="no plug-in 'absent'"):
        sources_hash("asked", "absent")
