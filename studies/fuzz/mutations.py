"""What is done to a file of a sound case: a kind of mutation, drawn from a seed, and why it may be accepted.

A kind says for itself why an input of it may be audited to its end: without such a reason an acceptance is a fault of
the study's. No kind knows what the workbench does about it.
"""

import random
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from studies.fuzz.world import COHORTS, ROLES

Target = str
Rng = random.Random


class Kind(NamedTuple):
    """One kind: what it acts on, its name, what it does to a copy of the world, and why that may be accepted.

    ``command``: what is then said to ``residua`` from within the copy; without it the copy is audited.
    """

    target: Target
    name: str
    act: Callable[[Rng, Path], object]
    harmless: str
    command: Callable[[Rng, Path], Sequence[str]] | None = None


MODEL_FILES: Final = {
    "config": ("config.json", "generation_config.json"),
    "tokenizer": ("tokenizer.json", "tokenizer_config.json"),
    "weights": ("model.safetensors",),
}
TARGETS: Final = ("case", "data", "config", "tokenizer", "weights")


def file_of(rng: Rng, root: Path, target: Target) -> Path:
    """One of the target's files: of the case, of a cohort, or of a role."""
    if target == "case":
        return root / "case.toml"
    if target == "data":
        return root / f"{rng.choice(COHORTS)}.jsonl"
    return root / rng.choice(ROLES) / rng.choice(MODEL_FILES[target])


# ---- bytes ------------------------------------------------------------------------------------------------------
def _place(rng: Rng, data: bytes) -> int:
    return rng.randrange(max(len(data), 1))


def _truncated(rng: Rng, data: bytes) -> bytes:
    return data[: _place(rng, data)]


def _flipped(rng: Rng, data: bytes) -> bytes:
    changed = bytearray(data)
    for _ in range(rng.choice((1, 1, 8, 64))):
        changed[_place(rng, data)] ^= 1 << rng.randrange(8)
    return bytes(changed)


def _inserted(rng: Rng, data: bytes) -> bytes:
    at = _place(rng, data)
    drawn = (b"\0", b"\xff\xfe", b"\x1b[31m", b"\xed\xa0\x80", b"\r", b"{", b'"', b"\xe2\x80\xae", rng.randbytes(8))
    return data[:at] + rng.choice(drawn) + data[at:]


def _without_part(rng: Rng, data: bytes) -> bytes:
    at = _place(rng, data)
    return data[:at] + data[at + rng.choice((1, 10, 100, 1000)) :]


def _doubled(rng: Rng, data: bytes) -> bytes:
    at = _place(rng, data)
    part = data[at : at + rng.choice((1, 40, 400))]
    return data[:at] + part + data[at:]


def _reencoded(rng: Rng, data: bytes) -> bytes:
    return data.decode("utf-8", errors="replace").encode(rng.choice(("utf-16", "utf-32", "utf-16-le")))


BYTES: Final[dict[str, tuple[Callable[[Rng, bytes], bytes], str]]] = {
    "cut short": (_truncated, "what is left is a whole file: it was cut where a row or a line ends"),
    "bits flipped": (_flipped, "another sound value: a letter, a digit or a weight"),
    "bytes put in": (_inserted, "within a text, which may hold any character, or behind the last line"),
    "bytes left out": (_without_part, "another sound value, or a row less"),
    "bytes doubled": (_doubled, "another sound value"),
    "empty": (lambda _rng, _data: b"", "a file that may be missing, such as the generation config"),
    "byte-order mark": (lambda _rng, data: b"\xef\xbb\xbf" + data, "the mark of UTF-8 is read over"),
    "other line ends": (lambda _rng, data: data.replace(b"\n", b"\r\n"), "the same rows and values"),
    "re-encoded": (_reencoded, "the file is not read: a generation config"),
    "noise": (lambda rng, _data: rng.randbytes(rng.choice((1, 100, 5000))), "the file is not read"),
}


def damage_bytes(rng: Rng, path: Path) -> None:
    """One of the ways of damaging bytes, on one file."""
    change, _ = rng.choice(list(BYTES.values()))
    path.write_bytes(change(rng, path.read_bytes()))


def replace_file(rng: Rng, path: Path) -> None:
    """Something else in the place of one file."""
    path.unlink()
    rng.choice(list(FILES.values()))(path)


def _on_bytes(target: Target, change: Callable[[Rng, bytes], bytes]) -> Callable[[Rng, Path], None]:
    def act(rng: Rng, root: Path) -> None:
        path = file_of(rng, root, target)
        path.write_bytes(change(rng, path.read_bytes()))

    return act


def byte_kinds() -> Iterator[Kind]:
    """Every way of damaging bytes, on every target."""
    for target in TARGETS:
        for name, (change, harmless) in BYTES.items():
            yield Kind(target, name, _on_bytes(target, change), harmless)


# ---- the file itself --------------------------------------------------------------------------------------------
def _pipe(path: Path) -> None:
    import os

    os.mkfifo(path)


def _socket(path: Path) -> None:
    import os
    import stat

    os.mknod(path, stat.S_IFSOCK | 0o600)


def _own_loop(path: Path) -> None:
    path.symlink_to(path.name)


def _longer_loop(path: Path) -> None:
    path.with_name("there").symlink_to(path.name)
    path.symlink_to("there")


def _vast(path: Path) -> None:
    """A file of four terabytes of which nothing is written."""
    import os

    path.touch()
    os.truncate(path, 1 << 42)


FILES: Final[dict[str, Callable[[Path], object]]] = {
    "named pipe": _pipe, "socket": _socket, "device": lambda path: path.symlink_to("/dev/null"),
    "folder": lambda path: path.mkdir(), "link to itself": _own_loop, "loop of links": _longer_loop,
    "link to nothing": lambda path: path.symlink_to("nowhere"), "missing": lambda _path: None,
    "file larger than memory": _vast, "file of the kernel": lambda path: path.symlink_to("/proc/self/status"),
}  # fmt: skip


def _in_place_of(target: Target, put: Callable[[Path], object]) -> Callable[[Rng, Path], None]:
    def act(rng: Rng, root: Path) -> None:
        path = file_of(rng, root, target)
        path.unlink()
        put(path)

    return act


def file_kinds() -> Iterator[Kind]:
    """Something else in the place of a file."""
    for target in TARGETS:
        for name, put in FILES.items():
            yield Kind(target, name, _in_place_of(target, put), "a file that may be missing, such as a tokenizer's")
