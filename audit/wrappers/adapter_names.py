"""Names of an adapter's tensors, as its file spells them and as the model that takes them does.

PEFT loads what matches and leaves the rest out. Here every tensor finds its place by exact name, or all of them do
after one renaming of the whole file: wrappers of training dropped (``torch.compile``, FSDP), the name of the adapter
taken out, one leading path replaced by another. Nothing is renamed by half, and nothing where two renamings fit.
"""

from collections.abc import Collection, Iterator, Mapping
from typing import NamedTuple

_WRAPPERS = frozenset({"_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module", "_forward_module"})
_LEADING = frozenset({"base_model", "model", "module"})
_ENDS = ("weight", "bias")
_SHOWN = 3


class Places(NamedTuple):
    """Where a model takes tensors: ``wanted`` names must all come, ``allowed`` ones may (weights of base itself).

    ``prefix`` is what the adapter's own parameters start with (``lora_``), ``base`` the model's name for its decoder
    (``model``, ``transformer``).
    """

    wanted: frozenset[str]
    allowed: frozenset[str]
    prefix: str
    base: str

    def folded(self, name: str) -> str:
        """DoRA's magnitudes are a module in the model and a bare tensor in the file that PEFT writes."""
        bare = name.removesuffix(".weight")
        return bare if bare in self.wanted else name

    def fit(self, names: Collection[str]) -> bool:
        """Are these all that is wanted, and nothing for which there is no place?"""
        return self.wanted <= set(names) <= self.wanted | self.allowed


def placed(file: Collection[str], places: Places) -> dict[str, str] | None:
    """The place of each tensor of the file, or None where there is no renaming or no single one."""
    if places.fit(file):
        return {name: name for name in file}
    plain = {name: without_wrappers(name, places.prefix) for name in file}
    fitting: list[dict[str, str]] = []
    for rule in _renamings(list(plain.values()), places):
        new = {name: places.folded(rule[inner]) for name, inner in plain.items()}
        if len(set(new.values())) == len(new) and places.fit(new.values()) and new not in fitting:
            fitting.append(new)
    return fitting[0] if len(fitting) == 1 else None


def without_wrappers(name: str, prefix: str) -> str:
    """The name without wrappers of training and without the adapter's name (``lora_A.default.weight``)."""
    parts = [part for part in name.split(".") if part not in _WRAPPERS]
    for at, part in enumerate(parts[:-1]):
        if part == "modules_to_save" and at + 2 < len(parts):
            return ".".join(parts[:at] + parts[at + 2 :])
        if prefix and part.startswith(prefix):
            inside = parts[at + 1 :]
            return ".".join([*parts[: at + 1], *(inside if inside[0] in _ENDS else inside[1:])])
    return ".".join(parts)


def _renamings(names: list[str], places: Places) -> Iterator[Mapping[str, str]]:
    """Every way to put one leading path for another on all names alike."""
    known = _LEADING | {places.base}
    old, new = _leading(names, known), _leading(sorted(places.wanted), known)
    for cut in range(len(old) + 1):
        for kept_parts in range(len(new) + 1):
            start = new[:kept_parts]
            yield {name: ".".join([*start, *name.split(".")[cut:]]) for name in names}


def _leading(names: Collection[str], known: Collection[str]) -> list[str]:
    """The parts that all names start with, as far as they only lead to the decoder."""
    shared: list[str] = []
    for parts in zip(*(name.split(".")[:-1] for name in names), strict=False):
        if len(set(parts)) > 1 or parts[0] not in known:
            break
        shared.append(parts[0])
    return shared


def misfit(file: Collection[str], places: Places) -> str:
    """What does not fit, in words: tensors without a place, places without a tensor, and the likely cause."""
    lost, empty = sorted(set(file) - places.wanted - places.allowed), sorted(places.wanted - set(file))
    problems: list[str] = []
    if lost:
        problems.append(f"{len(lost)} of its {len(file)} tensors have no place in the model ({_first(lost)})")
    if empty:
        problems.append(f"{len(empty)} places of the adapter get no tensor ({_first(empty)})")
    return " and ".join(problems) + _cause(lost, empty)


def _cause(lost: list[str], empty: list[str]) -> str:
    if any(".experts" in name for name in (*lost, *empty)):
        return "; of experts, only plain pairs of matrices are merged"
    if any(part in name.split(".") for name in lost for part in ("score", "classifier", "qa_outputs")):
        return "; it was trained for another task than writing text"
    if lost and not empty:
        return "; it was trained on a model with more layers or other ones"
    if empty and not lost:
        return "; only a part of it was saved"
    return "; its keys were renamed by half, or it was trained on another kind of model"


def _first(names: list[str]) -> str:
    return ", ".join(names[:_SHOWN]) + (", ..." if len(names) > _SHOWN else "")
