"""What one format of quantised release says of itself: a file of :mod:`audit.checkpoints.dequantisers` each.

A format is known by the settings in a model's config. It says which stored tensors make up one weight, and gives that
weight's values from them, by its own library's arithmetic where the library has one for the CPU.
"""

import importlib
import importlib.metadata
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import JsonValue

from audit import plugins
from audit.schema import AuditError, ExitCode

if TYPE_CHECKING:
    from torch import Tensor

DEQUANTISERS = "audit.checkpoints.dequantisers"
Parts = Mapping[str, str]
"""Part of a weight (codes, scales, ...) -> the name under which it is stored."""
# whose linear layers are stored as [in, out]; formats store theirs as [out, in] all the same
_INPUT_FIRST = ("gpt2", "openai-gpt", "imagegpt", "decision_transformer")


class Dequantiser(ABC):
    """One format, by the settings of one release.

    ``package``: the library whose arithmetic gives the values, None where it is written out here. ``suffixes``: how the
    name of a stored tensor ends -> which part of a weight it is; what stands before is the weight's stem. ``marks``:
    parts that no plain weight has, so that a stem with one of them is a weight in codes. ``needed``: parts without
    which there are no values. ``unused``: parts that say nothing of the weight's values, as scales of activations;
    ``left_out``: a pattern of whole names of that kind, as scales of keys and values.
    """

    package: ClassVar[str | None] = None
    suffixes: ClassVar[Mapping[str, str]]
    marks: ClassVar[frozenset[str]]
    needed: ClassVar[frozenset[str]]
    unused: ClassVar[frozenset[str]] = frozenset()
    left_out: ClassVar[str] = "$^"
    weight: ClassVar[str] = ".weight"
    """What follows the stem in the name of the weight whose values are given."""

    def __init__(self, settings: Mapping[str, JsonValue], config: Mapping[str, JsonValue]) -> None:
        self.settings, self.config = settings, config

    @classmethod
    @abstractmethod
    def claims(cls, settings: Mapping[str, JsonValue]) -> bool:
        """Are these the settings of a release in this format?"""

    @property
    @abstractmethod
    def called(self) -> str:
        """The format and its variant, as a report names it."""

    @property
    def activations(self) -> str:
        """Which rounding of activations the release's own runtime does; empty where it does none."""
        return ""

    @abstractmethod
    def values(self, stem: str, parts: "Mapping[str, Tensor]") -> "Tensor":
        """The weight's values in floating point, in the shape that the model has, from its stored parts."""

    def note(self, parts: "Mapping[str, Tensor]") -> str:
        """What a report should say of a weight that was stored like this, beside its format; mostly nothing."""
        return ""

    def check(self) -> None:
        """AuditError (code 2) for a variant of the format that cannot be dequantised here."""
        return None

    def headed(self, metadata: Mapping[str, str]) -> None:
        """What the header of a file says beside its tensors; most formats say nothing there."""
        return None

    def groups(self, names: Iterable[str]) -> dict[str, Parts]:
        """Stem -> parts, for every weight that is stored in codes. AuditError (code 3): a part is missing."""
        endings = sorted(self.suffixes, key=len, reverse=True)
        found: dict[str, dict[str, str]] = {}
        for name in names:
            ending = next((ending for ending in endings if name.endswith(ending)), None)
            if ending is not None:
                found.setdefault(name.removesuffix(ending), {})[self.suffixes[ending]] = name
        coded = {stem: parts for stem, parts in sorted(found.items()) if self.marks & parts.keys()}
        for stem, parts in coded.items():
            if lacking := sorted(self.needed - parts.keys()):
                raise self.lacking(stem, lacking[0])
        return coded

    def lacking(self, stem: str, part: str) -> AuditError:
        """The error for a weight in codes whose ``part`` is in no file (code 3)."""
        return AuditError(
            f"{stem}: a weight in {self.called}, and its {part} is not in the files",
            "fetch or copy the checkpoint again, with all of its shards",
            ExitCode.INTEGRITY,
        )

    def name_of(self, stem: str) -> str:
        """The name of the weight whose values :meth:`values` gives."""
        return stem + self.weight

    @property
    def input_first(self) -> bool:
        """Does the model store its linear layers as [in, out], where the format has them as [out, in]?"""
        return self.config.get("model_type") in _INPUT_FIRST

    @property
    def versions(self) -> dict[str, str]:
        """Package -> its installed version, of those whose arithmetic gives the values."""
        import torch

        own = {} if self.package is None else {self.package: importlib.metadata.version(self.package)}
        return own | {"torch": torch.__version__}

    def library(self, module: str) -> Any:
        """A module of the format's library. AuditError (code 2) with the command that installs it."""
        return library_of(module, self.called)


def library_of(module: str, called: str) -> Any:
    """A module of an optional library. AuditError (code 2) with the command that installs it."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        package = module.partition(".")[0].replace("_", "-")
        raise AuditError(
            f"a release in {called} is opened by the package {package}, which cannot be imported ({error})",
            "pip install 'residua[quantised]'",
        ) from None


def dequantiser_for(
    settings: Mapping[str, JsonValue], config: Mapping[str, JsonValue]
) -> tuple[Dequantiser | None, tuple[str, ...]]:
    """The format that claims these settings, or None; and the names of all formats that are known."""
    known = plugins.discover(DEQUANTISERS, Dequantiser)
    claiming = next((cls for cls in known.values() if cls.claims(settings)), None)
    return None if claiming is None else claiming(settings, config), tuple(known)
