"""What kind of audit a case is, read from files: a calibration holds only for audits like those it was made from."""

from math import prod

from audit.case import OpenCase
from audit.checkpoints import image_settings_of, model_config, tensor_shapes, weights_folder
from audit.probing import Recall
from audit.schema import Domain, Texts

DIGITS = 4


def domain_of(case: OpenCase, found: Recall) -> Domain:
    """The domain of a case; ``found`` is what base recalls (:func:`audit.probing.recall`). No model is built.

    A size that base's config does not state is 0, which lies outside every domain. The vocabulary of a
    classifier of images are its classes.
    """
    sizes, shapes = model_config(case.base).read_by_head, tensor_shapes(weights_folder(case.base))
    images = case.modality == "image"
    answers = len(image_settings_of(case.base).classes) if images else sizes.vocabulary
    null = "none" if case.null is None else case.null[0]
    return Domain.model_validate(
        {
            "architecture": case.base.family,
            "parameters": sum(prod(shape) for shape in shapes.values()),
            "blocks": sizes.blocks or 0,
            "d": sizes.width or 0,
            "vocabulary": answers or 0,
            "forget_people": len({item.group for item in case.items(Texts(cohort="forget"))}),
            "null": "holdout" if null == "none" and case.has(Texts(cohort="holdout")) else null,
            "references": len(case.case.roles.never_trained),
            "control_effect": round(found.base - found.against, DIGITS),
        }
    )
