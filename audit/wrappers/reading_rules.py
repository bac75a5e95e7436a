"""How the library makes a model's parameters of the tensors in its files, and these of those, by name.

A file may hold one tensor an expert, or the names of an older release, where the model holds all experts in one tensor.
The rules are the library's own; here they are followed tensor by tensor, without reading a checkpoint as a whole.
"""

from collections.abc import Callable, Mapping
from copy import deepcopy
from typing import Any, NamedTuple, cast

from torch import Tensor
from transformers import PreTrainedModel
from transformers.conversion_mapping import get_model_conversion_mapping
from transformers.core_model_loading import (
    WeightConverter,
    dot_natural_key,
    rename_source_key,
    revert_weight_conversion,
)


class Destination(NamedTuple):
    """The parameter or buffer that a stored tensor belongs to, and the rule by which it is put together with others, if
    it is."""

    name: str
    rule: str | None


class ReadingRules:
    """The rules of one model, which may be one without values."""

    def __init__(self, model: PreTrainedModel) -> None:
        self.model = model
        self.parameters: dict[str, Tensor] = dict(model.named_parameters(remove_duplicate=False))
        self.held: dict[str, Tensor] = model.state_dict()
        transforms = get_model_conversion_mapping(model)
        self._fusing = [t for t in transforms if isinstance(t, WeightConverter)]
        self._renaming: Any = [t for t in transforms if not isinstance(t, WeightConverter)]
        self._by_pattern = {pattern: converter for converter in self._fusing for pattern in converter.source_patterns}

    def destination(self, stored: str) -> Destination:
        """Where a stored tensor goes; a name that the model does not hold belongs to nothing in it."""
        prefix = self.model.base_model_prefix
        name, rule = rename_source_key(stored, self._renaming, self._fusing, prefix, self.held)
        if name not in self.held and stored in self.held:
            name, rule = rename_source_key(stored, [], [], prefix, self.held)
        return Destination(name, rule)

    def built(self, name: str, pieces: Mapping[str, Callable[[], Tensor]]) -> dict[str, Tensor]:
        """The parameters that all pieces of ``name`` give, by the names of the stored tensors, read one by one."""
        rules = {stored: self.destination(stored).rule for stored in pieces}
        converter = deepcopy(self._by_pattern[next(rule for rule in rules.values() if rule is not None)])
        for stored in sorted(pieces, key=dot_natural_key):
            converter.add_tensor(name, stored, rules[stored] or stored, cast(Any, pieces[stored]))
        parameters: dict[str, Any] = converter.convert(name, self.model, self.model.config)
        return {target: part[0] if isinstance(part, list) else part for target, part in parameters.items()}

    def stored(self, name: str, value: Tensor) -> dict[str, Tensor]:
        """A parameter as the library writes it: the tensors that a file would hold, by their names."""
        return revert_weight_conversion(self.model, {name: value})
