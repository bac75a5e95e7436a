from collections.abc import Mapping
from pathlib import Path

from tests.house.imports import Import, imports_of, sources


def lay_out(root: Path, files: Mapping[str, str]) -> Path:
    """Write a small tree; every folder of ``audit`` and ``probes`` gets an ``__init__`` where none is given."""
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        for folder in path.relative_to(root).parents:
            if folder != Path() and name.endswith(".py") and f"{folder.as_posix()}/__init__.py" not in files:
                (root / folder / "__init__.py").touch()
    return root


def imports(root: Path, files: Mapping[str, str]) -> list[Import]:
    return imports_of(sources(lay_out(root, files)))


def test_name_taken_from_a_package_is_an_import_of_its_door(tmp_path: Path) -> None:
    files = {
        "audit/bench/__init__.py": "from audit.bench.bench import Bench\n",
        "audit/bench/bench.py": "class Bench: ...\n",
        "audit/engine.py": "from audit.bench import Bench\n",
    }
    assert Import("audit.engine", "audit.bench", "Bench", 1, "top") in imports(tmp_path, files)
    assert {entry.target for entry in imports(tmp_path, files) if entry.importer == "audit.engine"} == {"audit.bench"}


def test_module_taken_from_a_package_is_an_import_of_the_module(tmp_path: Path) -> None:
    files = {"audit/stats.py": "", "audit/joint.py": "from audit import stats\nimport audit.stats\n"}
    assert [(i.target, i.line) for i in imports(tmp_path, files)] == [("audit.stats", 1), ("audit.stats", 2)]


def test_late_and_type_only_imports_are_counted_and_marked(tmp_path: Path) -> None:
    text = (
        "from typing import TYPE_CHECKING\n"
        "import audit.one\n"
        "if TYPE_CHECKING:\n    from audit.two import T\nelse:\n    from audit.three import T\n"
        "def f():\n    from importlib import import_module\n    import_module('audit.four')\n    import audit.five\n"
    )
    files = {f"audit/{name}.py": "" for name in ("one", "two", "three", "four", "five")} | {"audit/all_kinds.py": text}
    kinds = {entry.target: entry.kind for entry in imports(tmp_path, files)}
    assert kinds == {
        "audit.one": "top", "audit.two": "type", "audit.three": "top", "audit.four": "function",
        "audit.five": "function",
    }  # fmt: skip


def test_relative_imports_are_resolved(tmp_path: Path) -> None:
    files = {
        "audit/bench/__init__.py": "from .shapes import Rows\n",
        "audit/bench/shapes.py": "from ..data import split\nfrom . import rows\n",
        "audit/bench/rows.py": "", "audit/data.py": "",
    }  # fmt: skip
    assert [(i.importer, i.target) for i in imports(tmp_path, files)] == [
        ("audit.bench", "audit.bench.shapes"),
        ("audit.bench.shapes", "audit.data"),
        ("audit.bench.shapes", "audit.bench.rows"),
    ]


def test_libraries_are_no_imports_of_ours(tmp_path: Path) -> None:
    assert imports(tmp_path, {"audit/data.py": "import json\nfrom collections import abc\nimport audit_other\n"}) == []


def test_stub_beside_a_package_is_its_door(tmp_path: Path) -> None:
    files = {
        "audit/bench/__init__.py": "import lazy_loader\n",
        "audit/bench/__init__.pyi": "from . import deep as deep\nfrom .rows import rows as rows\n",
        "audit/bench/deep.py": "",
        "audit/bench/rows.py": "def rows(): ...\n",
        "audit/bench/inner.py": "",
        "audit/engine.py": "from audit.bench import deep, rows\nfrom audit.bench import inner\n",
    }
    entries = [(i.target, i.taken) for i in imports(tmp_path, files) if i.importer == "audit.engine"]
    assert entries == [("audit.bench", "deep"), ("audit.bench", "rows"), ("audit.bench.inner", "")]
