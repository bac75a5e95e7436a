"""Putting a change into functions that are in memory already: the code of every function that it touches is replaced.

Whoever holds a function (a name in another module, a decorator, a validator) holds the same object, so that nothing has
to be imported again. What runs at import, a constant, a class body or a default, cannot be changed like this.
"""

import gc
import sys
from collections import Counter
from collections.abc import Collection, Sequence
from pathlib import Path
from types import CodeType, FunctionType
from typing import NamedTuple

_LOCALS = 0x2
"""The flag (CO_NEWLOCALS) that code of functions has, and code of modules and classes has not."""


class _Key(NamedTuple):
    """A function in its file: several on one line are told apart by their order."""

    name: str
    line: int
    nth: int


class Loaded(NamedTuple):
    """The code of a file as it was imported: what ran then, and every function, those inside functions as well."""

    imported: tuple[object, ...]
    functions: dict[_Key, CodeType]


def loaded(path: Path) -> Loaded | None:
    """The code of this file as its loader compiles it now; None where it was not imported."""
    for module in list(sys.modules.values()):
        spec = getattr(module, "__spec__", None)
        if spec is not None and spec.origin == str(path) and hasattr(spec.loader, "get_code"):
            return _parts(spec.loader.get_code(spec.name))
    return None


def held(paths: Collection[Path]) -> dict[Path, list[FunctionType]]:
    """Every function of these files that is in memory. To look for them touches every object there is, which in a fork
    copies the memory of all of them: to be called before one is made."""
    found: dict[Path, list[FunctionType]] = {path: [] for path in paths}
    gc.unfreeze()
    for thing in gc.get_objects():
        if isinstance(thing, FunctionType) and (path := Path(thing.__code__.co_filename)) in found:
            found[path].append(thing)
    gc.freeze()
    return found


def swap(path: Path, was: Loaded, functions: Sequence[FunctionType]) -> bool:
    """Every function of the file gets the code that it has there now; ``was``: what it had when it was imported.

    False, and nothing is done, where the file differs in what runs at import.
    """
    now = loaded(path)
    if now is None or now.imported != was.imported or now.functions.keys() != was.functions.keys():
        return False
    changed = {key: code for key, code in now.functions.items() if code != was.functions[key]}
    if any(code.co_freevars != was.functions[key].co_freevars for key, code in changed.items()):
        return False
    for function in functions:
        code = next((code for key, code in changed.items() if function.__code__ == was.functions[key]), None)
        if code is not None:
            function.__code__ = code
    return bool(changed)


def _parts(module: CodeType) -> Loaded:
    imported: list[object] = []
    functions: dict[_Key, CodeType] = {}
    seen: Counter[tuple[str, int]] = Counter()

    def visit(code: CodeType, inside: bool) -> None:
        is_function = bool(code.co_flags & _LOCALS)
        if is_function:
            place = code.co_qualname, code.co_firstlineno
            functions[_Key(*place, seen[place])] = code
            seen[place] += 1
        elif not inside:
            plain = tuple(repr(x) for x in code.co_consts if not isinstance(x, CodeType))
            imported.append((code.co_code, code.co_names, plain, code.co_qualname))
        for part in code.co_consts:
            if isinstance(part, CodeType):
                visit(part, inside or is_function)

    visit(module, False)
    return Loaded(tuple(imported), functions)
