"""What kind of audit a case is, read from files: a calibration holds only for audits like those it was made from."""

from collections.abc import Mapping
from math import prod

from audit.case import OpenCase
from audit.checkpoints import folder_of, read_config, tensor_shapes
from audit.probing import Recall
from audit.schema import Domain, Texts

DIGITS = 4


def _stated(config: Mapping[str, object], *names: str) -> int:
    """The first of these settings that a config states; 0 where it states none, which lies outside every domain."""
    return next((value for name in names if isinstance(value := config.get(name), int)), 0)


def domain_of(case: OpenCase, found: Recall) -> Domain:
    """The domain of a case; ``found`` is what base recalls (:func:`audit.probing.recall`). No model is built."""
    folder = folder_of(case.base)
    config: Mapping[str, object] = read_config(folder)
    text = config.get("text_config")
    config = {str(name): value for name, value in text.items()} if isinstance(text, dict) else config
    null = "none" if case.null is None else case.null[0]
    return Domain.model_validate(
        {
            "architecture": case.base.family,
            "parameters": sum(prod(shape) for shape in tensor_shapes(folder).values()),
            "blocks": _stated(config, "num_hidden_layers", "n_layer", "num_layers"),
            "d": _stated(config, "hidden_size", "n_embd", "d_model"),
            "vocabulary": _stated(config, "vocab_size"),
            "forget_people": len({item.group for item in case.items(Texts(cohort="forget"))}),
            "null": "holdout" if null == "none" and case.has(Texts(cohort="holdout")) else null,
            "references": sum(lineage == "same_ancestor" for lineage in case.reference_lineage),
            "control_effect": round(found.base - found.against, DIGITS),
        }
    )
