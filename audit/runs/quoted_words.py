"""The words behind the masked cells of listings and the masked triggers of findings, for a document that shows them.

A report names them by their marks alone. They are kept beside the item tables in the run folder, as the texts of the
items are, and are no part of an export.
"""

import json
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from audit.runs import run_files
from audit.runs.masking import Mask
from audit.schema import Measurement
from audit.storage import write_atomic


def words_of(measurements: Iterable[Measurement]) -> tuple[str, ...]:
    """The cells of the quoted columns that are words, and the quoted triggers of findings, each once, in order."""
    words: dict[str, None] = {}
    for m in measurements:
        for listing in m.listings:
            places = [listing.columns.index(name) for name in listing.quoted]
            words |= dict.fromkeys(cell for row in listing.rows for n in places if isinstance(cell := row[n], str))
        triggers = (finding.trigger for finding in m.findings)
        words |= dict.fromkeys(t.text for t in triggers if t is not None and t.quoted and not t.masked)
    return tuple(words)


def keep_words(folder: Path, probe: str, measurements: Iterable[Measurement]) -> None:
    """Write what a probe quotes to the run folder; nothing where it quotes nothing. AuditError (code 3) if the disk
    refuses."""
    if words := words_of(measurements):
        path = folder / run_files.TABLES / f"{probe}{run_files.QUOTED}"
        write_atomic(path, (json.dumps(words, ensure_ascii=True, indent=0) + "\n").encode())


def kept_words(folder: Path, mask: Mask) -> dict[str, str]:
    """The kept words by their marks; a file that cannot be read is passed over, and its cells stay masked."""
    by_mark: dict[str, str] = {}
    for path in sorted((folder / run_files.TABLES).glob(f"*{run_files.QUOTED}")):
        with suppress(OSError, ValueError):
            words: object = json.loads(path.read_bytes())
            by_mark |= {str(mask(w)): w for w in words if isinstance(w, str)} if isinstance(words, list) else {}
    return by_mark
