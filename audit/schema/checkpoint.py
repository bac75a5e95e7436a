"""Weights named by content, and the edits that are played back on them."""

import hashlib
import json
from typing import Literal

from audit.schema.record import Record


class EditRecord(Record):
    """A fitted edit as the bench plays it back: the edit's name and settings, and the hash of its stored delta.

    ``plays`` says how: ``weights`` replaces whole tensors by those in ``delta.safetensors``; the others are hooks whose
    arrays lie in the same file (``logit_bias``: ``bias``; ``low_rank``: ``u``, ``v``, ``b`` per site).
    """

    name: str
    plays: Literal["weights", "logit_bias", "low_rank"]
    settings: dict[str, str | int | float | bool] = {}
    delta_sha256: str
    delta_file: str = "delta.safetensors"


class Checkpoint(Record):
    """Weights named by content, never by label.

    ``source`` is a local folder (absolute path) or ``owner/name@<40-hex commit>``; ``fingerprint`` is the sha256 over
    tensors, config, tokenizer and generation config. ``edits`` are played back in order; each lives in ``edits_from``.
    """

    source: str
    family: str
    fingerprint: str
    adapter: str | None = None
    edits: tuple[EditRecord, ...] = ()
    edits_from: str | None = None

    @property
    def key(self) -> str:
        """Content key: fingerprint and edits, without any path. Names everything computed from these weights."""
        # Not content_key: calibrations and users' stores hold keys of this form, and it has said the same all along.
        payload = json.dumps([self.fingerprint, [e.model_dump(mode="json") for e in self.edits]], sort_keys=True)
        return hashlib.sha256(payload.encode()).hexdigest()
