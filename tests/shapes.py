"""The run-time check of annotations, shapes of arrays included, that tests/conftest.py hangs on our numerical modules.

jaxtyping brings a hook of its own. It binds the arguments of every call twice and checks them twice, and it wraps a
function inside a function anew whenever the outer one is called: a third of what the tests took. This one checks once,
leaves functions inside functions alone, and opens a scope for the sizes of axes only where an array is annotated.
"""

import ast
import dataclasses
import functools
import inspect
import sys
import typing
from collections.abc import Callable, Iterator, Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from types import ModuleType
from typing import Any

from beartype import BeartypeConf, beartype
from jaxtyping import AbstractArray, jaxtyped

NUMERICAL = (
    "audit.bench", "audit.calibration.error_rates", "audit.calibration.joint_rule", "audit.case.alternates",
    "audit.case.image_rows", "audit.case.inserted_text", "audit.case.pictures", "audit.case.row_means",
    "audit.case.rows", "audit.case.scene_rows", "audit.case.subjects", "audit.circuits", "audit.edits",
    "audit.case.item_pictures", "audit.engine.replaying", "audit.forecasting", "audit.pools.fit",
    "audit.probing", "audit.readouts", "audit.review.comparison", "audit.runs.masking",
    "audit.runs.thumbnails", "audit.stats", "audit.wrappers", "audit.zoo",
    "probes", "saes",
)  # fmt: skip
"""Packages and modules that handle arrays. Preparing a check takes time at import; elsewhere the type checker has
already said what a check at run time would say."""

_DECORATOR = "__checked__"
_check = beartype(conf=BeartypeConf(is_pep484_tower=True))


def checked(thing: Any) -> Any:
    """A function with its arguments and result checked at every call; a dataclass with its fields checked when made.

    ``Self`` has no meaning without the class, and methods are seen one by one: one that says it is left alone. A
    protocol is checked by the names of its members. An ``int`` is accepted for a ``float``, as type checkers do. What
    is named in a string and is not there yet, or there for type checkers alone, may be anything.
    """
    if isinstance(thing, type):
        if dataclasses.is_dataclass(thing):
            setattr(thing, "__init__", checked(vars(thing)["__init__"]))  # noqa: B010  (a type checker forbids the other)
        return thing
    thing.__annotations__ = {name: _evaluated(hint, thing) for name, hint in thing.__annotations__.items()}
    hints = list(_parts(thing.__annotations__.values()))
    if typing.Self in hints:
        return thing
    for hint in hints:
        if isinstance(hint, type) and getattr(hint, "_is_protocol", False):
            typing.runtime_checkable(hint)
    if not any(isinstance(hint, type) and issubclass(hint, AbstractArray) for hint in hints):
        return _check(thing)
    return jaxtyped(thing, typechecker=_check) if inspect.isgeneratorfunction(thing) else _scoped(_check(thing))


def _scoped(function: Callable[..., Any]) -> Callable[..., Any]:
    """The same function; an axis of one name has one size within each call."""

    @functools.wraps(function)
    def scoped(*args: Any, **kwargs: Any) -> Any:
        with jaxtyped("context"):
            return function(*args, **kwargs)

    return scoped


def _evaluated(hint: Any, function: Any) -> Any:
    """The hint without strings in it, or Any where one of them says nothing yet."""
    if not any(isinstance(part, str | typing.ForwardRef) for part in _parts([hint])):
        return hint

    def stub() -> None: ...

    stub.__annotations__ = {"hint": hint}
    try:
        return typing.get_type_hints(stub, function.__globals__, include_extras=True)["hint"]
    except NameError:
        return Any


def _parts(hints: typing.Iterable[Any]) -> Iterator[Any]:
    """Every hint, and whatever stands inside its brackets."""
    for hint in hints:
        yield hint
        inside = typing.get_args(hint)
        yield from _parts([part for item in inside for part in (item if isinstance(item, list) else [item])])


# ---- the hook ---------------------------------------------------------------------------------------------------
def check_imports(names: Sequence[str]) -> None:
    """From now on, check the functions of modules with these names, or below them, as they are imported."""
    sys.meta_path.insert(0, _Finder(names))


class _Decorating(ast.NodeTransformer):
    """Decorates functions, methods and classes, and goes into classes only."""

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        # Last, so that it sees the function itself, with its annotations.
        node.decorator_list.append(ast.copy_location(ast.Name(_DECORATOR, ast.Load()), node))
        return node

    def visit_ClassDef(self, node: ast.ClassDef) -> ast.AST:
        # First, so that it sees what the decorator of a dataclass leaves.
        node.decorator_list.insert(0, ast.copy_location(ast.Name(_DECORATOR, ast.Load()), node))
        return self.generic_visit(node)


class _Loader(SourceFileLoader):
    def get_code(self, fullname: str) -> Any:
        """Compiled at every import, so that decorated code is in no cache that others read."""
        path = self.get_filename(fullname)
        return compile(_Decorating().visit(ast.parse(self.get_data(path), path)), path, "exec", dont_inherit=True)

    def exec_module(self, module: ModuleType) -> None:
        vars(module)[_DECORATOR] = checked
        super().exec_module(module)


class _Finder(MetaPathFinder):
    def __init__(self, names: Sequence[str]) -> None:
        self._names = names

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if not any(fullname == name or fullname.startswith(f"{name}.") for name in self._names):
            return None
        spec = PathFinder.find_spec(fullname, path, target)
        if spec is not None and isinstance(spec.loader, SourceFileLoader):
            spec.loader = _Loader(spec.loader.name, spec.loader.path)
        return spec
