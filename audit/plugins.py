"""A folder is a registry: one file is one plug-in, the file's name is its name, and nothing else lists it.

:func:`discover` imports the files; :func:`describe` reads them from their syntax tree and imports nothing, so that
``residua probes`` and a page that only shows text stay free of torch.
"""

import ast
import importlib
import importlib.util
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from types import MappingProxyType, ModuleType
from typing import NamedTuple, TypeVar

from audit.schema import AuditError, ExitCode

Plugin = TypeVar("Plugin")


class Setting(NamedTuple):
    """One field of a plug-in class: its name, its annotation and its default, all as written in the source."""

    name: str
    annotation: str
    default: str | None


class Description(NamedTuple):
    """What a plug-in file says of itself. ``requires`` is the literal class attribute, as (keyword, value) pairs.

    ``attack`` is the word for the attack that a probe makes; None where it makes none. ``bases`` are the names of its
    base classes, ``constants`` the class attributes that are written as literals.
    """

    name: str
    class_name: str
    question: str
    docstring: str
    settings: tuple[Setting, ...]
    requires: tuple[tuple[str, str], ...]
    version: int
    attack: str | None = None
    bases: tuple[str, ...] = ()
    constants: Mapping[str, object] = MappingProxyType({})


def _broken(path: Path, reason: str) -> AuditError:
    return AuditError(
        f"{path.name} is not a plug-in: {reason}",
        f"put exactly one plug-in class into {path}, or start the file name with an underscore",
        ExitCode.INTEGRITY,
    )


def folder(package: str) -> Path:
    """Where a package of plug-ins lies. AuditError (code 2) if there is none."""
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise AuditError(f"there is no package {package!r}", "name an importable package of plug-ins")
    return Path(next(iter(spec.submodule_search_locations)))


def _files(package: str) -> list[Path]:
    return sorted(path for path in folder(package).glob("*.py") if not path.name.startswith("_"))


def _plugin_of(module: ModuleType, base: type[Plugin], path: Path) -> type[Plugin]:
    plugins = [
        value
        for value in vars(module).values()
        if isinstance(value, type) and issubclass(value, base) and value.__module__ == module.__name__
    ]
    if len(plugins) != 1:
        names = ", ".join(sorted(cls.__name__ for cls in plugins)) or "none"
        raise _broken(path, f"it needs exactly one subclass of {base.__name__} and has {len(plugins)} ({names})")
    return plugins[0]


def discover(package: str, base: type[Plugin]) -> dict[str, type[Plugin]]:
    """The plug-ins of a package: file name -> the one subclass of ``base`` that the file defines.

    Files that start with an underscore are shared code, never plug-ins, nor is the file that defines ``base``. Raises
    AuditError (code 3) for a file with no such class or with several.
    """
    plugins: dict[str, type[Plugin]] = {}
    for path in _files(package):
        name = f"{package}.{path.stem}"
        if name != base.__module__:
            plugins[path.stem] = _plugin_of(importlib.import_module(name), base, path)
    return plugins


def _settings(cls: ast.ClassDef) -> tuple[Setting, ...]:
    fields: list[Setting] = []
    for node in cls.body:
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            annotation = ast.unparse(node.annotation)
            if not annotation.startswith("ClassVar"):
                fields.append(Setting(node.target.id, annotation, ast.unparse(node.value) if node.value else None))
    return tuple(fields)


def _class_value(cls: ast.ClassDef, name: str) -> ast.expr | None:
    for node in cls.body:
        if isinstance(node, ast.Assign) and any(isinstance(t, ast.Name) and t.id == name for t in node.targets):
            return node.value
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.target.id == name:
            return node.value
    return None


def _literal(cls: ast.ClassDef, name: str) -> object:
    """A class attribute that is written as a constant; None where there is none."""
    value = _class_value(cls, name)
    return value.value if isinstance(value, ast.Constant) else None


def _constants(cls: ast.ClassDef) -> Mapping[str, object]:
    """The class variables of a class that are written as literals, by name."""
    constants: dict[str, object] = {}
    for node in cls.body:
        if not isinstance(node, ast.AnnAssign) or not isinstance(node.target, ast.Name) or node.value is None:
            continue
        if ast.unparse(node.annotation).startswith("ClassVar"):
            with suppress(ValueError):
                constants[node.target.id] = ast.literal_eval(node.value)
    return constants


def _lineage(cls: ast.ClassDef, shared: Mapping[str, ast.ClassDef]) -> list[ast.ClassDef]:
    """The class, after those of its bases that the folder's shared files define: what they state it states too."""
    lineage = [cls]
    for base in cls.bases:
        if isinstance(base, ast.Name) and base.id in shared:
            lineage = [*_lineage(shared[base.id], shared), *lineage]
    return lineage


def _shared_classes(folder: Path) -> dict[str, ast.ClassDef]:
    """The classes of the folder's files that begin with an underscore, by name."""
    trees = (ast.parse(path.read_text(encoding="utf-8"), filename=str(path)) for path in sorted(folder.glob("_*.py")))
    return {node.name: node for tree in trees for node in tree.body if isinstance(node, ast.ClassDef)}


def _described(path: Path, shared: Mapping[str, ast.ClassDef]) -> Description:
    tree = ast.parse(path.read_text(encoding="utf-8"), filename=str(path))
    classes = [node for node in tree.body if isinstance(node, ast.ClassDef)]
    claimed = [cls for cls in classes if _class_value(cls, "requires") or _class_value(cls, "plays")]
    if len(claimed) != 1:
        raise _broken(path, f"{len(claimed)} of its classes state what they require or how they play")
    cls = claimed[0]
    docstring = ast.get_docstring(cls) or ""
    requires = _class_value(cls, "requires")
    pairs: tuple[tuple[str, str], ...] = ()
    if isinstance(requires, ast.Call):
        pairs = tuple((word.arg, ast.unparse(word.value)) for word in requires.keywords if word.arg)
    version, attack = _literal(cls, "version"), _literal(cls, "attack")
    version, attack = version if isinstance(version, int) else 1, attack if isinstance(attack, str) else None
    question = docstring.strip().splitlines()[0] if docstring.strip() else ""
    lineage = _lineage(cls, shared)
    settings = {setting.name: setting for each in lineage for setting in _settings(each)}
    constants = {name: value for each in lineage for name, value in _constants(each).items()}
    return Description(
        path.stem, cls.name, question, docstring, tuple(settings.values()), pairs, version, attack,
        tuple(ast.unparse(base) for base in cls.bases), constants,
    )  # fmt: skip


def describe(package: str) -> list[Description]:
    """What the plug-ins of a package say of themselves, read from their syntax trees: no plug-in is imported."""
    shared = _shared_classes(folder(package))
    return [_described(path, shared) for path in _files(package)]
