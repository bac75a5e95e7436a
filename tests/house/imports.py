"""Every import of our own modules, read from the syntax trees and resolved as Python would; nothing is imported.

An import counts wherever it is written: at the top of a module, inside a function (made late to start fast), under
``if TYPE_CHECKING`` (seen by the type checker only), or as a literal name given to ``import_module``. ``from x import
y`` is an import of ``x`` where ``x`` binds ``y`` or there is no module ``x.y``, else of that module: an import through
a package's door (``from audit.bench import Bench``) is an import of the package and not of the file that defines the
name. A door is what ``__init__.py`` binds and, where names are bound on first use, what the stub beside it
(``__init__.pyi``) says that it binds.
"""

import ast
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Literal, NamedTuple

PACKAGES = ("audit", "probes", "saes", "dashboards", "studies")

Kind = Literal["top", "function", "type"]


class Import(NamedTuple):
    """One import of a module of ours: who imports which module, what it takes, and where that is written."""

    importer: str
    target: str
    taken: str
    line: int
    kind: Kind


class Source(NamedTuple):
    """One module: its dotted name, whether it is a package's ``__init__``, and its syntax tree."""

    name: str
    package: bool
    tree: ast.Module


@lru_cache(maxsize=4096)
def parsed(text: str) -> ast.Module:
    """The syntax tree of a module's text, parsed once a process; nobody may change it."""
    return ast.parse(text)


def sources(root: Path, packages: tuple[str, ...] = PACKAGES) -> dict[str, Source]:
    """Every module of the packages under ``root``, by dotted name; a package that does not exist is left out."""
    modules: dict[str, Source] = {}
    for path in (path for package in packages for path in sorted((root / package).rglob("*.py"))):
        package = path.name == "__init__.py"
        parts = path.relative_to(root).with_suffix("").parts
        name = ".".join(parts[:-1] if package else parts)
        tree, stub = parsed(path.read_text(encoding="utf-8")), path.with_suffix(".pyi")
        if package and stub.is_file():
            tree = ast.Module([*tree.body, *parsed(stub.read_text(encoding="utf-8")).body], [])
        modules[name] = Source(name, package, tree)
    return modules


def bound(source: Source, name: str) -> bool:
    """Does a module bind this name at its own level, by an import or a definition?"""
    waiting: list[ast.stmt] = list(source.tree.body)
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.If):
            waiting += [*node.body, *node.orelse]
        elif isinstance(node, ast.ImportFrom):
            if name in {alias.asname or alias.name for alias in node.names}:
                return True
        elif isinstance(node, ast.FunctionDef | ast.ClassDef) and node.name == name:
            return True
    return False


def origin(source: Source, node: ast.ImportFrom) -> str:
    """The dotted module after ``from``, dots in front of it resolved."""
    if not node.level:
        return node.module or ""
    parts = source.name.split(".")
    parents = parts[: len(parts) - node.level + source.package]
    return ".".join([*parents, *([node.module] if node.module else [])])


def is_type_only(node: ast.AST) -> bool:
    """Is this ``if TYPE_CHECKING``?"""
    return isinstance(node, ast.If) and ast.unparse(node.test).rpartition(".")[2] == "TYPE_CHECKING"


def imports_of(modules: dict[str, Source]) -> list[Import]:
    """All imports between the modules, in the order of modules and lines."""
    return [entry for source in modules.values() for entry in _imports(source, source.tree, "top", modules)]


def _imports(source: Source, node: ast.AST, kind: Kind, modules: dict[str, Source]) -> Iterator[Import]:
    for target, taken in _targets(source, node, modules):
        if target != source.name:
            yield Import(source.name, target, taken, getattr(node, "lineno", 0), kind)
    type_only = node.body if isinstance(node, ast.If) and is_type_only(node) else []
    for child in ast.iter_child_nodes(node):
        inner: Kind = kind
        if kind == "type" or child in type_only:
            inner = "type"
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            inner = "function"
        yield from _imports(source, child, inner, modules)


def _targets(source: Source, node: ast.AST, modules: dict[str, Source]) -> list[tuple[str, str]]:
    """(module of ours, name taken from it) for one node: none unless it is an import of ours."""
    wanted: list[tuple[str, str]] = []
    if isinstance(node, ast.Import):
        wanted = [(alias.name, "") for alias in node.names]
    elif isinstance(node, ast.ImportFrom):
        module = origin(source, node)
        for alias in node.names:
            inner = f"{module}.{alias.name}"
            taken = inner not in modules or (module in modules and bound(modules[module], alias.name))
            wanted.append((module, alias.name) if taken else (inner, ""))
    elif isinstance(node, ast.Call) and ast.unparse(node.func).rpartition(".")[2] == "import_module":
        literal = [arg.value for arg in node.args[:1] if isinstance(arg, ast.Constant) and isinstance(arg.value, str)]
        wanted = [(name, "") for name in literal]
    return [(target, taken) for target, taken in wanted if target in modules]
