"""Content named by what it says: one canonical text, and the hashes over it."""

import hashlib
import json


def canonical_json(content: object) -> str:
    """Canonical JSON: sorted keys, no spaces, UTF-8. Equal content gives equal text. TypeError for what is no JSON."""
    return json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def canonical_hash(content: object) -> str:
    """sha256 (hex) of :func:`canonical_json`."""
    return hashlib.sha256(canonical_json(content).encode()).hexdigest()


def content_key(*parts: object) -> str:
    """A name (hex) over everything that decides what is named, part by part in order.

    What stands for weights, rows or records are their own keys and hashes: a whole checkpoint would name its folder.
    """
    return canonical_hash(parts)
