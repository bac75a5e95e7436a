"""Which function, class or field an expression names, read from the syntax trees: what a walk needs to follow a call.

Names are looked up as Python would: in the function, then the module, then through its imports and the doors that they
pass. Classes of values come from annotations, constructors and the annotated results of our own functions; where none
of these says, the value's class is not known and a call on it is not followed.
"""

import ast
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from tests.house.imports import Source, origin, sources

SEQUENCES = {"list", "tuple", "set", "frozenset", "Sequence", "Iterable", "Iterator", "Collection", "Generator"}
MAPPINGS = {"dict", "Mapping", "MutableMapping", "defaultdict", "OrderedDict"}

Def = ast.FunctionDef | ast.AsyncFunctionDef


class Function(NamedTuple):
    """A function or method of ours."""

    module: str
    name: str
    node: Def

    @property
    def key(self) -> str:
        """Its name in the whole code base."""
        return f"{self.module}:{self.name}"

    @property
    def parameters(self) -> list[ast.arg]:
        """In the order in which arguments fill them, ``self`` and ``cls`` left out."""
        named = [*self.node.args.posonlyargs, *self.node.args.args, *self.node.args.kwonlyargs]
        return [arg for arg in named if arg.arg not in ("self", "cls")]

    @property
    def is_property(self) -> bool:
        """Is it read like a field?"""
        return any(
            ast.unparse(d).rpartition(".")[2] in ("property", "cached_property") for d in self.node.decorator_list
        )


class Class(NamedTuple):
    """A class of ours."""

    module: str
    name: str
    node: ast.ClassDef


class Kind(NamedTuple):
    """What is known of a value: its class, what it yields when it is iterated, and at each place of a fixed tuple."""

    of: Class | None = None
    item: "Kind | None" = None
    places: "tuple[Kind, ...]" = ()


UNKNOWN = Kind()

Definition = Function | Class | Source


class Definitions:
    """Everything that the modules under a root define."""

    def __init__(self, root: Path) -> None:
        self.modules = sources(root)
        self._members = {name: dict(_members(source)) for name, source in self.modules.items()}
        self._imported = {name: dict(imported(source, source.tree)) for name, source in self.modules.items()}

    def function(self, module: str, name: str) -> Function:
        """A function of a module, or ``Class.method``. KeyError if there is none."""
        holder, _, method = name.rpartition(".")
        member = self._members[module].get(holder or method)
        if holder and isinstance(member, Class):
            member = self.method(member, method)
        if not isinstance(member, Function):
            raise KeyError(f"{module} has no function {name}")
        return member

    def lookup(self, dotted: str, depth: int = 0) -> Definition | None:
        """What a dotted name means, through any number of doors."""
        module, _, name = dotted.rpartition(".")
        if dotted in self.modules and self._imported.get(module, {}).get(name, dotted) == dotted:
            return self.modules[dotted]
        if module not in self.modules:
            holder = self.lookup(module, depth + 1) if "." in module and depth < 9 else None
            return self.method(holder, name) if isinstance(holder, Class) else None
        return self.named(module, name, {}, depth)

    def named(self, module: str, name: str, local: Mapping[str, str], depth: int = 0) -> Definition | None:
        """What a bare name means in a module, given the names that the function imports."""
        if name in local:
            return self.lookup(local[name], depth + 1) if depth < 9 else None
        member = self._members[module].get(name)
        if member is None and name in self._imported[module] and depth < 9:
            return self.lookup(self._imported[module][name], depth + 1)
        return member

    def resolved(self, module: str, node: ast.expr, local: Mapping[str, str]) -> Definition | None:
        """What a name or a chain of attributes of modules and classes means."""
        if isinstance(node, ast.Name):
            return self.named(module, node.id, local)
        if isinstance(node, ast.Attribute):
            holder = self.resolved(module, node.value, local)
            if isinstance(holder, Source):
                return self.lookup(f"{holder.name}.{node.attr}")
            if isinstance(holder, Class):
                return self.method(holder, node.attr)
        return None

    # ---- classes -------------------------------------------------------------------------------------------------
    def line(self, holder: Class, depth: int = 0) -> Iterator[Class]:
        """A class and the classes of ours that it inherits from."""
        yield holder
        for base in holder.node.bases:
            node = base.value if isinstance(base, ast.Subscript) else base
            parent = self.resolved(holder.module, node, {})
            if isinstance(parent, Class) and depth < 9:
                yield from self.line(parent, depth + 1)

    def method(self, holder: Class, name: str) -> Function | None:
        """A method, inherited ones included."""
        for owner in self.line(holder):
            for node in owner.node.body:
                if isinstance(node, Def) and node.name == name:
                    return Function(owner.module, f"{owner.name}.{name}", node)
        return None

    def field(self, holder: Class, name: str) -> Kind:
        """The kind of an attribute: an annotated field, a property's result, or what ``__init__`` puts there."""
        for owner in self.line(holder):
            for node in owner.node.body:
                if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.target.id == name:
                    return self.annotated(owner.module, node.annotation)
        member = self.method(holder, name)
        if member is not None:
            return self.annotated(member.module, member.node.returns) if member.is_property else UNKNOWN
        start = self.method(holder, "__init__")
        return self._placed(start, name) if start is not None else UNKNOWN

    def fields(self, holder: Class) -> list[str]:
        """The annotated fields of a record in their order, inherited ones first."""
        owners = [*self.line(holder)][::-1]
        nodes = (node for owner in owners for node in owner.node.body if isinstance(node, ast.AnnAssign))
        return list(dict.fromkeys(ast.unparse(node.target) for node in nodes))

    def _placed(self, start: Function, name: str) -> Kind:
        """What ``__init__`` assigns to ``self.<name>``: a parameter of known class, or a new object."""
        annotations = {arg.arg: arg.annotation for arg in start.parameters}
        for node in ast.walk(start.node):
            if isinstance(node, ast.AnnAssign) and ast.unparse(node.target) == f"self.{name}":
                return self.annotated(start.module, node.annotation)
            for target, value in _pairs(node):
                if ast.unparse(target) != f"self.{name}":
                    continue
                if isinstance(value, ast.Name) and annotations.get(value.id) is not None:
                    return self.annotated(start.module, annotations[value.id])
                made = value.func if isinstance(value, ast.Call) else value
                definition = self.resolved(start.module, made, dict(imported(self.modules[start.module], start.node)))
                if isinstance(definition, Class) and isinstance(value, ast.Call):
                    return Kind(definition)
                if isinstance(definition, Function):
                    return self.annotated(definition.module, definition.node.returns)
        return UNKNOWN

    def annotated(self, module: str, node: ast.expr | None, depth: int = 0) -> Kind:
        """The kind that an annotation states."""
        if node is None or depth > 9:
            return UNKNOWN
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            return self.annotated(module, ast.parse(node.value, mode="eval").body, depth + 1)
        if isinstance(node, ast.BinOp):
            sides = (self.annotated(module, side, depth + 1) for side in (node.left, node.right))
            return next((side for side in sides if side != UNKNOWN), UNKNOWN)
        if isinstance(node, ast.Subscript):
            outer = ast.unparse(node.value).rpartition(".")[2]
            inner = node.slice.elts if isinstance(node.slice, ast.Tuple) else [node.slice]
            if outer == "tuple" and len(inner) > 1 and ast.unparse(inner[1]) != "...":
                return Kind(places=tuple(self.annotated(module, part, depth + 1) for part in inner))
            if outer in SEQUENCES:
                return Kind(item=self.annotated(module, inner[0], depth + 1))
            if outer in MAPPINGS:
                return Kind(item=self.annotated(module, inner[-1], depth + 1))
            return self.annotated(
                module, inner[0] if outer in ("Optional", "Final", "ClassVar") else node.value, depth + 1
            )
        definition = self.resolved(module, node, {})
        return Kind(definition) if isinstance(definition, Class) else UNKNOWN


def _pairs(node: ast.AST) -> Iterator[tuple[ast.expr, ast.expr]]:
    """(target, value) of an assignment, tuples of equal length taken apart."""
    if not isinstance(node, ast.Assign):
        return
    for target in node.targets:
        if isinstance(target, ast.Tuple) and isinstance(node.value, ast.Tuple):
            yield from zip(target.elts, node.value.elts, strict=False)
        else:
            yield target, node.value


def _members(source: Source) -> Iterator[tuple[str, Function | Class]]:
    """Functions and classes at the top of a module, those under an ``if`` too."""
    waiting: list[ast.stmt] = list(source.tree.body)
    while waiting:
        node = waiting.pop(0)
        if isinstance(node, ast.If):
            waiting = [*node.body, *node.orelse, *waiting]
        elif isinstance(node, Def):
            yield node.name, Function(source.name, node.name, node)
        elif isinstance(node, ast.ClassDef):
            yield node.name, Class(source.name, node.name, node)


def imported(source: Source, scope: ast.AST) -> Iterator[tuple[str, str]]:
    """(name, dotted name it stands for) of the imports in a function, or at a module's own level."""
    own = isinstance(scope, ast.Module)
    waiting = list(ast.iter_child_nodes(scope))
    while waiting:
        node = waiting.pop(0)
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield (alias.asname, alias.name) if alias.asname else (alias.name.partition(".")[0],) * 2
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                yield alias.asname or alias.name, f"{origin(source, node)}.{alias.name}"
        elif not (own and isinstance(node, Def | ast.ClassDef)):
            waiting += ast.iter_child_nodes(node)
