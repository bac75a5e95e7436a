"""Masks: a text of the data becomes a keyed hash and its number of words, the same text always the same mark.

The key is made once per run folder, readable by its owner alone, and is no part of report, manifest or export. Without
it a mark cannot be tried against guessed texts; with it one can show that a given text is the one that was masked.
"""

import hashlib
import hmac
import os
import re
import secrets
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final

from jaxtyping import UInt8
from numpy import ndarray

from audit.runs import custody, run_files
from audit.schema import (
    AuditError,
    ExitCode,
    Finding,
    Item,
    Listing,
    Masked,
    Measurement,
    Missing,
    PeopleKept,
    Pictured,
)
from audit.storage import TEMP, disk_error, file_bytes
from audit.wording import folded, runs

KEY: Final = run_files.MASK_KEY
DIGITS: Final = 12
RUN: Final = 5
"""So many consecutive words of the data are never shown."""
_WHOLE_KEY: Final = re.compile(r"[0-9a-f]{64}\n?")


def key_of(folder: Path) -> bytes:
    """The key of a run folder, made on first use (mode 600). AuditError (code 3) if it is damaged or cannot be kept."""
    path = folder / KEY
    if not path.is_file():
        _make(path)
    text = file_bytes(path).decode("ascii", errors="replace")
    if not _WHOLE_KEY.fullmatch(text):
        raise AuditError(f"{path} is no key", "restore it, or start over with --force-new", ExitCode.INTEGRITY)
    return bytes.fromhex(text)


def keep_key(folder: Path, tool: str) -> None:
    """Write the hash of the key down in the custody log. AuditError (code 3) if it is not the one with which this run
    masked before: the same text would have two marks."""
    if KEY in custody.held(folder) and not (folder / KEY).is_file():
        raise AuditError(f"{folder / KEY} is missing", "restore it, or start over with --force-new", ExitCode.INTEGRITY)
    custody.check_kept(folder, KEY)
    key_of(folder)
    custody.keep(folder, {KEY: custody.sha256_of(folder / KEY)}, tool)


def _make(path: Path) -> None:
    """Whole or not at all, and never readable by others, not even for a moment."""
    temp = path.with_name(f".{path.name}.{os.getpid()}{TEMP}")
    try:
        handle = os.open(temp, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(handle, "w", encoding="ascii") as file:
            file.write(secrets.token_hex(32) + "\n")
            file.flush()
            os.fsync(file.fileno())
        temp.replace(path)
    except OSError as error:
        temp.unlink(missing_ok=True)
        raise disk_error(path, error) from None


class Mask:
    """Masks texts with one key."""

    def __init__(self, key: bytes) -> None:
        self._key = key

    def __call__(self, text: str) -> Masked:
        """The mark of a text and its number of words (parted by white space)."""
        return Masked(mark=self._mark(text.encode(errors="surrogatepass")), words=len(text.split()))

    def image(self, pixels: UInt8[ndarray, "height width *channel"]) -> Pictured:
        """The mark of an image, and nothing of the image."""
        return Pictured(mark=self._mark(str(pixels.shape).encode() + pixels.tobytes()))

    def _mark(self, content: bytes) -> str:
        return hmac.new(self._key, content, hashlib.sha256).hexdigest()[:DIGITS]


def renamed(measurement: Measurement, naming: Callable[[str], str]) -> Measurement:
    """The measurement with the groups that stand out, the quoted cells of its listings and the quoted triggers of its
    findings under other names: their marks, or again their own."""
    listings = tuple(_requoted(listing, naming) for listing in measurement.listings)
    findings = tuple(_respoken(finding, naming) for finding in measurement.findings)
    people = people_renamed(measurement.people, naming)
    return measurement.model_copy(update={"people": people, "listings": listings, "findings": findings})


def _respoken(finding: Finding, naming: Callable[[str], str]) -> Finding:
    """A trigger under another name is masked if it was in clear, and in clear if it was masked."""
    trigger = finding.trigger
    if trigger is None or not trigger.quoted:
        return finding
    text = naming(trigger.text)
    changes = {"text": text, "masked": trigger.masked != (text != trigger.text)}
    return finding.model_copy(update={"trigger": trigger.model_copy(update=changes)})


def _requoted(listing: Listing, naming: Callable[[str], str]) -> Listing:
    quoted = {n for n, name in enumerate(listing.columns) if name in listing.quoted}
    rows = tuple(
        tuple(naming(cell) if n in quoted and isinstance(cell, str) else cell for n, cell in enumerate(row))
        for row in listing.rows
    )
    return listing.model_copy(update={"rows": rows})


def people_renamed(people: PeopleKept | Missing, naming: Callable[[str], str]) -> PeopleKept | Missing:
    """The same people under other names."""
    if isinstance(people, Missing):
        return people
    return people.model_copy(update={"named": tuple(naming(name) for name in people.named)})


class Screen:
    """Masks what a message of ours quotes of the data: an id, a question, an answer, or a run of words of one."""

    def __init__(self, mask: Mask, texts: Iterable[str]) -> None:
        self._mask = mask
        self._known: dict[int, set[tuple[str, ...]]] = {}
        for text in set(texts):
            words = _words(text)
            size = min(len(words), RUN)
            for start in range(len(words) - size + 1 if size else 0):
                self._known.setdefault(size, set()).add(words[start : start + size])

    def __call__(self, text: str) -> str:
        """The message with every quoted run of words masked."""
        spans, words = runs(text), _words(text)
        hidden = [False] * len(words)
        for size, known in self._known.items():
            for start in range(len(words) - size + 1):
                if words[start : start + size] in known:
                    hidden[start : start + size] = [True] * size
        shown, end = "", 0
        for first, last in _stretches(hidden):
            start, stop = spans[first][0], spans[last][1]
            shown, end = f"{shown}{text[end:start]}{self._mask(text[start:stop])}", stop
        return shown + text[end:]


def _words(text: str) -> tuple[str, ...]:
    return tuple(folded(text[start:end]) for start, end in runs(text))


def _stretches(hidden: list[bool]) -> list[tuple[int, int]]:
    """First and last place of every stretch of hidden words."""
    stretches: list[tuple[int, int]] = []
    for place, hide in enumerate(hidden):
        if hide and stretches and stretches[-1][1] == place - 1:
            stretches[-1] = (stretches[-1][0], place)
        elif hide:
            stretches.append((place, place))
    return stretches


def texts_of(items: Iterable[Item], of_images: bool = False) -> Iterable[str]:
    """Everything of an item that a message could quote. ``of_images``: the answers are classes, which base's own
    config names and which are no secret of an image. A yes or a no alone quotes nothing: every message has such
    words."""
    return (text for text in _quotable(items, of_images) if folded(text.strip()) not in _SAYS_NOTHING)


_SAYS_NOTHING: Final = frozenset({"yes", "no"})


def _quotable(items: Iterable[Item], of_images: bool) -> Iterable[str]:
    for item in items:
        yield from (item.id, item.group, item.image or "")
        if of_images:
            continue
        yield from (item.question, item.answer, *item.perturbed_answers, *item.alternates)
        yield from (
            *item.alternate_keys,
            item.key or "",
            item.paraphrased_answer or "",
            item.paraphrased_question or "",
        )
