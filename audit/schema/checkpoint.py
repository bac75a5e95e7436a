"""Weights named by content, and the edits that are played back on them."""

import hashlib
import json
from typing import Literal

from pydantic import Field

from audit.schema.record import Record

Modality = Literal["text", "image", "image+text"]


class EditRecord(Record):
    """A fitted edit as the bench plays it back: the edit's name and settings, and the hash of its stored delta.

    ``plays`` says how: ``weights`` replaces whole tensors by those in ``delta.safetensors``; any other is a hook, the
    kind of a write of the bench, whose arrays lie in the same file. The bench refuses a kind that it does not have.
    """

    name: str
    plays: str
    settings: dict[str, str | int | float | bool] = {}
    delta_sha256: str
    delta_file: str = "delta.safetensors"

    @property
    def is_hook(self) -> bool:
        """Does the edit act on states instead of weights?"""
        return self.plays != "weights"


class OwnCode(Record):
    """Code that a checkpoint names and a case allowed: ``package.module:factory``, and sha256 over its files."""

    name: str
    sha256: str


class Checkpoint(Record):
    """Weights named by content, never by label.

    ``source`` is a local folder (absolute path) or ``owner/name@<40-hex commit>``; ``fingerprint`` is the sha256 over
    tensors, config, tokenizer and generation config. ``edits`` are played back in order; each lives in ``edits_from``.
    ``modality`` is what the model reads, as its config says; it names nothing beside the fingerprint.
    ``code`` runs when the model is opened; without it no code of a checkpoint does.
    ``vocabulary`` is how many rows of embeddings and head count where other models of a case have fewer: those behind
    are cut off when the model is opened. None: all of them.
    """

    source: str
    family: str
    fingerprint: str
    adapter: str | None = None
    edits: tuple[EditRecord, ...] = ()
    edits_from: str | None = None
    modality: Modality = "text"
    code: OwnCode | None = Field(default=None, exclude_if=lambda code: code is None)
    vocabulary: int | None = Field(default=None, ge=1, exclude_if=lambda rows: rows is None)

    @property
    def key(self) -> str:
        """Content key: fingerprint, edits, code and the rows that count, without any path. Names everything computed
        from these weights."""
        # Not content_key: calibrations and users' stores hold keys of this form, and it has said the same all along.
        parts: list[object] = [self.fingerprint, [e.model_dump(mode="json") for e in self.edits]]
        if self.code is not None:
            parts.append(self.code.sha256)
        if self.vocabulary is not None:
            parts.append({"vocabulary": self.vocabulary})
        payload = json.dumps(parts, sort_keys=True)
        return hashlib.sha256(payload.encode()).hexdigest()
