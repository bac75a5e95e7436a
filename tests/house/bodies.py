"""One function's body, read in the order written for what becomes of a parameter and where it is handed on."""

import ast
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple, Protocol

from tests.house.definitions import UNKNOWN, Class, Definition, Definitions, Function, Kind, imported
from tests.house.facts import Fact, elements, joined, row

COLLECTED = {"list", "tuple", "set", "frozenset", "sorted", "reversed", "iter", "filter"}
"""Built-in functions that give a collection of what they get, of the same kind."""
CHOSEN = {"next", "max", "min"}
"""Built-in functions that give one element of what they get; ``max(x, 0.0)`` is a number computed from it."""
HELD = {"dict", "map", "chain", "from_iterable", "replace", "cast", "array", "asarray"}
"""Library functions whose result holds what they get, of another kind."""
CONVERTED = {"str", "int", "float"}
PUT = {"append", "add", "extend", "insert", "update", "setdefault"}
"""Methods of libraries that put what they get into their object."""
COPIES = {"values", "copy", "model_copy", "_replace"}
ELEMENTS = {"get", "pop", "setdefault"}
VIEWS = {"items", "keys", "model_validate"}
"""Methods of libraries that give the object again, an element of it, or its elements in another form."""


class Argument(NamedTuple):
    """One argument of a call: its keyword ("" by place), whether a star stands before it, and its value."""

    name: str
    starred: bool
    fact: Fact


class Walker(Protocol):
    """Who enters the functions to which the parameter is handed."""

    code: Definitions

    def enter(self, function: Function, given: Mapping[str, Fact]) -> Fact:
        """Walk a function with some of its parameters derived; what it hands back."""
        ...


class Body:
    """The names of one function while it is read."""

    def __init__(self, walk: Walker, function: Function, given: Mapping[str, Fact]) -> None:
        self.walk, self.code, self.function = walk, walk.code, function
        self.local = dict(imported(self.code.modules[function.module], function.node))
        self.returned: list[Fact] = []
        self.facts: dict[str, Fact] = {}
        arguments = function.node.args
        for arg in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs):
            kind = self.code.annotated(function.module, arg.annotation)
            self.facts[arg.arg] = given.get(arg.arg, Fact())._replace(kind=kind)
        for arg in filter(None, (arguments.vararg, arguments.kwarg)):
            kind = Kind(item=self.code.annotated(function.module, arg.annotation))
            self.facts[arg.arg] = given.get(arg.arg, Fact())._replace(kind=kind)
        holder = function.name.rpartition(".")[0]
        owner = self.code.named(function.module, holder, {}) if holder else None
        if isinstance(owner, Class):
            self.facts["self"] = given.get("self", Fact())._replace(kind=Kind(owner))
            self.facts["cls"] = Fact(kind=Kind(owner))

    # ---- statements ----------------------------------------------------------------------------------------------
    def read(self, statements: Iterable[ast.stmt]) -> None:
        """Statements one after the other, the branches of a condition too."""
        for node in statements:
            self._statement(node)

    def _statement(self, node: ast.stmt) -> None:
        match node:
            case ast.Raise():
                pass  # an error takes the parameter nowhere that the walk comes back from
            case ast.Assign(targets=targets, value=value):
                fact = self.value(value)
                for target in targets:
                    self._bind(target, fact)
            case ast.AnnAssign(target=target, annotation=annotation, value=value):
                fact = Fact() if value is None else self.value(value)
                kind = self.code.annotated(self.function.module, annotation)
                self._bind(target, fact if kind == UNKNOWN else fact._replace(kind=kind))
            case ast.AugAssign(target=target, value=value):
                self._bind(target, joined([self.value(target), self.value(value)]))
            case ast.For(target=target, iter=source) | ast.AsyncFor(target=target, iter=source):
                self._bind(target, self.value(source).item())
                self.read([*node.body, *node.orelse])
            case ast.With(items=items, body=body) | ast.AsyncWith(items=items, body=body):
                for entry in items:
                    fact = self.value(entry.context_expr)
                    if entry.optional_vars is not None:
                        self._bind(entry.optional_vars, fact)
                self.read(body)
            case ast.Return(value=value) if value is not None:
                self.returned.append(self.value(value))
            case _:
                for child in ast.iter_child_nodes(node):
                    self._part(child)

    def _part(self, node: ast.AST) -> None:
        if isinstance(node, ast.stmt):
            self._statement(node)
        elif isinstance(node, ast.expr):
            self.value(node)
        elif isinstance(node, ast.excepthandler | ast.match_case):
            self.read(node.body)

    def _bind(self, target: ast.expr, fact: Fact) -> None:
        match target:
            case ast.Name(id=name):
                before = self.facts.get(name, Fact())
                self.facts[name] = fact if fact.kind != UNKNOWN else fact._replace(kind=before.kind)
            case ast.Tuple(elts=parts) | ast.List(elts=parts):
                for place, part in enumerate(parts):
                    self._bind(part, fact.place(place, self.code))
            case ast.Starred(value=value):
                self._bind(value, fact)
            case ast.Attribute(value=ast.Name(id=name), attr=attribute) if fact.derived:
                self.facts[name] = self.facts.get(name, Fact()).holding(attribute, fact)
            case ast.Subscript(value=ast.Name(id=name)) if fact.derived:
                before = self.facts.get(name, Fact())
                self.facts[name] = Fact(True, before.kind)
            case _:
                pass

    # ---- expressions ---------------------------------------------------------------------------------------------
    def value(self, node: ast.expr) -> Fact:
        """What an expression gives, its calls followed on the way."""
        match node:
            case ast.Name(id=name):
                return self.facts.get(name, Fact())
            case ast.Attribute(value=value, attr=name):
                held = self.value(value)
                return held.attribute(name, self.code.field(held.kind.of, name) if held.kind.of else UNKNOWN)
            case ast.Subscript(value=value, slice=index):
                held = self.value(value)
                self.value(index)
                if isinstance(index, ast.Constant) and isinstance(index.value, int) and index.value >= 0:
                    return held.place(index.value, self.code)
                return held if isinstance(index, ast.Slice) else held.item()
            case ast.Call():
                return self._call(node)
            case ast.Compare() | ast.UnaryOp(op=ast.Not()) | ast.JoinedStr():
                for child in ast.walk(node):  # an answer or a sentence about the parameter is not the parameter
                    if isinstance(child, ast.Call):
                        self.value(child)
                return Fact()
            case ast.BinOp(left=left, op=operator, right=right):
                sides = joined([self.value(left), self.value(right)])
                return sides if isinstance(operator, ast.BitOr) else Fact(kind=sides.kind)
            case ast.IfExp(test=test, body=body, orelse=orelse):
                self.value(test)
                return joined([self.value(body), self.value(orelse)])
            case ast.NamedExpr(target=target, value=value):
                fact = self.value(value)
                self._bind(target, fact)
                return fact
            case ast.ListComp() | ast.SetComp() | ast.GeneratorExp() | ast.DictComp():
                return self._comprehension(node)
            case ast.List(elts=parts) | ast.Tuple(elts=parts) | ast.Set(elts=parts):
                return self._display(node, [self.value(part) for part in parts])
            case ast.Dict(keys=keys, values=values):
                facts = [self.value(part) for part in (*filter(None, keys), *values)]
                every = joined(facts[-len(values) :])
                return Fact(any(fact.derived for fact in facts), Kind(item=every.kind))
            case ast.Yield(value=value) | ast.YieldFrom(value=value):
                self.returned.append(Fact() if value is None else self.value(value))
                return Fact()
            case _:
                return joined([self.value(part) for part in ast.iter_child_nodes(node) if isinstance(part, ast.expr)])

    def _display(self, node: ast.expr, parts: list[Fact]) -> Fact:
        every = joined(parts)
        if isinstance(node, ast.Tuple):
            return row(parts)
        return Fact(every.derived, Kind(item=every.kind))

    def _comprehension(self, node: ast.ListComp | ast.SetComp | ast.GeneratorExp | ast.DictComp) -> Fact:
        outside = dict(self.facts)
        for part in node.generators:
            self._bind(part.target, self.value(part.iter).item())
            for condition in part.ifs:
                self.value(condition)
        made = [node.key, node.value] if isinstance(node, ast.DictComp) else [node.elt]
        facts = [self.value(part) for part in made]
        self.facts = outside
        return Fact(any(fact.derived for fact in facts), Kind(item=facts[-1].kind))

    # ---- calls ---------------------------------------------------------------------------------------------------
    def _call(self, node: ast.Call) -> Fact:
        target, receiver = self._target(node.func)
        arguments = [Argument("", isinstance(arg, ast.Starred), self.value(arg)) for arg in node.args]
        arguments += [Argument(word.arg or "", word.arg is None, self.value(word.value)) for word in node.keywords]
        if isinstance(target, Class):
            return self._made(target, arguments)
        if isinstance(target, Function):
            given = passed(target, arguments)
            kind = self.code.annotated(target.module, target.node.returns)
            if not given:
                return Fact(False, kind)
            return self.walk.enter(target, {"self": receiver, **given})._replace(kind=kind)
        return self._foreign(node.func, receiver, arguments)

    def _target(self, node: ast.expr) -> tuple[Definition | None, Fact]:
        """What is called, and the object whose method it is."""
        if isinstance(node, ast.Name) and node.id == "cls" and "cls" in self.facts:
            return self.facts["cls"].kind.of, Fact()
        if not (isinstance(node, ast.Name) and node.id in self.facts):
            target = self.code.resolved(self.function.module, node, self.local)
            if target is not None:
                return target, Fact()
        if isinstance(node, ast.Attribute):
            receiver = self.value(node.value)
            return (self.code.method(receiver.kind.of, node.attr) if receiver.kind.of else None), receiver
        return None, self.value(node)

    def _made(self, target: Class, arguments: Sequence[Argument]) -> Fact:
        """A new object: it holds what its ``__init__`` puts away, or as a record what it is given."""
        start = self.code.method(target, "__init__")
        if start is not None:
            given = passed(start, arguments)
            return self.walk.enter(start, given)._replace(kind=Kind(target)) if given else Fact(False, Kind(target))
        made, names = Fact(kind=Kind(target), fields={}), self.code.fields(target)
        for place, (name, starred, fact) in enumerate(arguments):
            if starred and fact.derived:
                return Fact(True, Kind(target))
            field = name or (names[place] if place < len(names) else "")
            made = made.holding(field, fact) if fact.derived else made
        return made

    def _foreign(self, node: ast.expr, receiver: Fact, arguments: Sequence[Argument]) -> Fact:
        """A library's function: derived where the result still holds what it got, not where it is computed from it."""
        given = [argument.fact for argument in arguments]
        if isinstance(node, ast.Attribute):
            return self._of_library(node, receiver, given)
        name = ast.unparse(node)
        derived = any(fact.derived for fact in given)
        if name in COLLECTED and given:
            return Fact(derived, given[name == "filter"].kind if len(given) > 1 else given[0].kind)
        if name in ("zip", "enumerate"):
            return elements(row([Fact()] * (name == "enumerate") + [fact.item() for fact in given]))
        if name in CHOSEN and given and (len(given) == 1 or arguments[1].name or name == "next"):
            return joined([given[0].item(), *given[1:]])
        return Fact(derived and (name in HELD | CONVERTED or _is_class(name)))

    def _of_library(self, node: ast.Attribute, receiver: Fact, given: list[Fact]) -> Fact:
        """A library's function by its module's name, or a method of a library's object."""
        derived = any(fact.derived for fact in given)
        if node.attr in PUT and derived and isinstance(node.value, ast.Name):
            self.facts[node.value.id] = Fact(True, receiver.kind)
        if node.attr in ELEMENTS:
            return joined([receiver.item(), *given[1:]])
        if node.attr in COPIES:
            return Fact(receiver.derived or derived, receiver.kind)
        return Fact((receiver.derived or derived) and (node.attr in HELD | VIEWS or _is_class(node.attr)))


def _is_class(name: str) -> bool:
    return name.lstrip("_")[:1].isupper()


def passed(target: Function, arguments: Sequence[Argument]) -> dict[str, Fact]:
    """Which parameters of a function get the walk's value by these arguments."""
    spec = target.node.args
    names = [arg.arg for arg in target.parameters]
    ordered = [name for name in names if name not in {arg.arg for arg in spec.kwonlyargs}]
    given: dict[str, Fact] = {}
    for place, (name, starred, fact) in enumerate(arguments):
        if not fact.derived:
            continue
        if starred:
            given |= {other: fact.item() for other in (ordered[place:] if place < len(ordered) else [])}
        elif name:
            given |= {name: fact} if name in names else {spec.kwarg.arg: fact} if spec.kwarg else {}
        elif place < len(ordered):
            given[ordered[place]] = fact
        elif spec.vararg:
            given[spec.vararg.arg] = fact
    return given
