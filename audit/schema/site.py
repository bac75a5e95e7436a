"""A place in a model where a state can be read or written."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from audit.schema.record import Record

TowerName = Literal["text", "vision", "projector"]
TOWERS: tuple[TowerName, ...] = ("vision", "projector", "text")
"""The towers of a model in the order in which a pass runs them."""
Part = Literal[
    "embed", "resid_in", "resid_mid", "resid_out", "attn_in", "mlp_in", "final_in",
    "q", "k", "v", "z", "pattern", "attn_out", "mlp_hidden", "mlp_out", "logits",
]  # fmt: skip
GLOBAL_PARTS = frozenset({"embed", "final_in", "logits"})


class Site(Record):
    """A place in a model where a state can be read or written.

    ``attn_in``, ``mlp_in`` and ``final_in`` are after the norm that the part reads through; ``attn_out`` and
    ``mlp_out`` are as added to the residual stream, after any post-norm. ``embed``, ``final_in`` and ``logits`` belong
    to no block; every other part needs one. ``head`` selects one head of ``q k v z pattern``. ``tower``: None is the
    one that the model's head reads, which is ``text`` in a language model and ``vision`` in an image classifier.
    """

    part: Part
    block: Annotated[int, Field(ge=0)] | None = None
    head: Annotated[int, Field(ge=0)] | None = None
    tower: TowerName | None = None

    @model_validator(mode="after")
    def _block_fits_part(self) -> Self:
        if (self.part in GLOBAL_PARTS) != (self.block is None):
            raise ValueError(f"site {self.part!r} {'takes no' if self.part in GLOBAL_PARTS else 'needs a'} block")
        return self

    def __str__(self) -> str:
        where = "" if self.block is None else f"{self.block}."
        head = "" if self.head is None else f"#{self.head}"
        # None is written "text", as the names of what was computed before have it: it is read back as None
        return f"{self.tower or 'text'}.{where}{self.part}{head}"
