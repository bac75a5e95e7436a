"""What every value that touches disk is: frozen, strict, free of torch, with canonical bytes and a content hash.

Unknown keys are errors, NaN is refused, and a missing value is the record :class:`Missing` with a reason, never a
number.
"""

from pydantic import BaseModel, ConfigDict

from audit.schema.canonical import canonical_hash, canonical_json


class Record(BaseModel):
    """Base of every value that touches disk: frozen, no unknown keys, no NaN."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    def canonical(self) -> str:
        """Canonical JSON: sorted keys, no spaces, UTF-8. Equal nouns give equal bytes."""
        return canonical_json(self.model_dump(mode="json"))

    def content_hash(self) -> str:
        """sha256 (hex) of :meth:`canonical`."""
        return canonical_hash(self.model_dump(mode="json"))


class Missing(Record):
    """A value that is not there, and why. Missing is a word with a reason, never a number."""

    missing: str
