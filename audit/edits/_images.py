"""What edits of image classifiers ask of their rows, and what they refuse by name."""

import re
from typing import TYPE_CHECKING, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from audit.case import IMAGE_TOKENS, Rows
from audit.edits._edit import EditData
from audit.schema import AuditError

if TYPE_CHECKING:
    from audit.wrappers import Wrapper


class Pixels(NamedTuple):
    """The continuous input of some rows, and what the model calls it."""

    name: str
    values: Float[Tensor, "row channel height width"]


def pixels_of(edit: str, rows: Rows) -> Pixels:
    """The pixels of rows. AuditError (code 2) for rows of tokens: their input has no gradient."""
    inputs = [Pixels(name, value) for name, value in rows.extra.items() if torch.is_floating_point(value)]
    if len(inputs) != 1:
        raise AuditError(f"{edit}: its objective is a gradient by the input, and tokens have none", "run it on images")
    return inputs[0]


def refuse_images(edit: str, data: EditData, reason: str) -> None:
    """AuditError (code 2) by the edit's name where the rows are images; ``reason`` says what it lacks there."""
    if data.forget.extra:
        raise AuditError(f"{edit}: {reason}, and these rows are images", "choose an edit of classes, as random_label")


def refuse_labels(edit: str, data: EditData, reason: str) -> None:
    """AuditError (code 2) by the edit's name where the answers are labels of images; those of questions about images
    are words, in rows of more tokens."""
    if data.retain.extra and data.retain.ids.shape[1] <= IMAGE_TOKENS:
        raise AuditError(f"{edit}: {reason}, and these rows are images", "choose an edit of classes, as random_label")


def last_block(wrapper: "Wrapper") -> str:
    """A regular expression on the names of the parameters of a classifier's last block.

    AuditError (code 2) for a backend that does not hold the model's own modules.
    """
    blocks: object = getattr(wrapper, "blocks", None)
    if not isinstance(blocks, nn.ModuleList):
        raise AuditError("this backend does not hold the model's own modules", "edit with the native backend")
    inside = {id(p) for p in blocks[-1].parameters()}
    return "|".join(re.escape(name) for name, p in wrapper.parameters().items() if id(p) in inside)
