"""What does the workbench make of every causal language model of transformers? One row a family and backend.

A family is built tiny, saved, resolved, opened by the real path and put through the load checks. Families are run in
processes of their own, a chunk each, so that one that ends its process or hangs costs its own row alone.
"""

import argparse
import json
import signal
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Generator, Iterable, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, Literal

from audit.schema import AuditError, ExitCode, Record, as_audit_error
from studies.provenance import Stamp, stamp

Outcome = Literal["opened", "refused", "broke", "not built"]
BACKENDS = ("native", "transformer_lens", "nnsight")
SECONDS = 90
"""CPU-seconds that building one family, or one backend on it, may take."""
_WORKERS = 2


class Seen(Record):
    """What became of one family behind one backend. ``code`` is the exit code that the command line would end with."""

    outcome: Outcome
    code: int = 0
    reason: str = ""
    parts: tuple[str, ...] = ()


class Family(Record):
    """One family: its class in the library, whether it was built, and what became of it behind every backend."""

    name: str
    model_class: str
    blocks: int = 0
    native: Seen
    transformer_lens: Seen | None = None
    nnsight: Seen | None = None


class Results(Record):
    """All families, and where their rows come from."""

    stamp: Stamp | None = None
    families: tuple[Family, ...]


class _TooLongError(Exception):
    """A family took longer than it may."""


@contextmanager
def _limited(seconds: int) -> Generator[None]:
    def end(_signal: int, _frame: FrameType | None) -> None:
        raise _TooLongError

    before = signal.signal(signal.SIGPROF, end)
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


def seen_family(name: str, backends: Sequence[str] = BACKENDS) -> Family:
    """Build one family tiny, and open it behind the backends."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    from studies.families.tiny_configs import tiny_model

    model_class = str(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES[name])
    with tempfile.TemporaryDirectory(prefix="residua-family-") as temp, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            with _limited(SECONDS), as_audit_error("it is not built", "give another config"):
                model = tiny_model(name)
                blocks = int(getattr(model.config.get_text_config(), "num_hidden_layers", 0) or 0)
                model.save_pretrained(temp)
        except AuditError as error:
            return Family(name=name, model_class=model_class, native=Seen(outcome="not built", reason=_line(error)))
        rows = {backend: _opened(Path(temp), backend) for backend in backends}
    return Family(name=name, model_class=model_class, blocks=blocks, **rows)


def _opened(folder: Path, backend: str) -> Seen:
    """One family behind one backend, by the path that a command goes."""
    from audit.checkpoints import resolve
    from audit.schema import Source
    from audit.wrappers import load_checks, open_wrapper

    try:
        with _limited(SECONDS), as_audit_error("it broke", "mend it", ExitCode.INTEGRITY):
            wrapper = open_wrapper(resolve(Source(path=str(folder)), Path("/")), backend)
            load_checks.check(wrapper)
    except AuditError as error:
        reason = _line(error).replace(str(folder), "FOLDER")
        return Seen(outcome="refused" if error.code == ExitCode.INPUT else "broke", code=error.code, reason=reason)
    return Seen(outcome="opened", parts=tuple(sorted(wrapper.parts)))


def _line(error: AuditError) -> str:
    return " ".join(error.what.split())[:300]


def sweep(names: Sequence[str], backends: Sequence[str] = BACKENDS) -> tuple[Family, ...]:
    """The rows of these families, in their order, from processes that hold a share of them each."""
    with tempfile.TemporaryDirectory(prefix="residua-sweep-") as temp:
        shares = [Path(temp) / f"{n}.jsonl" for n in range(_WORKERS)]
        running = [_begun(names[n::_WORKERS], backends, path) for n, path in enumerate(shares)]
        for n, path in enumerate(shares):
            left = list(names[n::_WORKERS])
            while left:
                running[n].wait()
                done = {row.name for row in _rows(path)}
                left = [name for name in left if name not in done]
                if left:
                    _append(path, _dead(left.pop(0), running[n].returncode))
                if left:
                    running[n] = _begun(left, backends, path)
        rows = {row.name: row for path in shares for row in _rows(path)}
    return tuple(rows[name] for name in names)


def _dead(name: str, code: int) -> Family:
    return Family(
        name=name, model_class="", native=Seen(outcome="broke", code=3, reason=f"its process ended with {code}")
    )


def _begun(names: Iterable[str], backends: Sequence[str], path: Path) -> "subprocess.Popen[bytes]":
    command = [sys.executable, "-m", "studies.families.sweep", "--share", str(path), "--backends", *backends]
    return subprocess.Popen([*command, "--names", *names], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def _append(path: Path, row: Family) -> None:
    with path.open("a", encoding="utf-8") as file:
        file.write(row.model_dump_json() + "\n")


def _rows(path: Path) -> list[Family]:
    return [Family.model_validate_json(line) for line in path.read_text().splitlines()] if path.exists() else []


def _arguments() -> Any:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--share", type=Path, help="append rows to this file, in this process")
    parser.add_argument("--names", nargs="*", default=[])
    parser.add_argument("--backends", nargs="*", default=list(BACKENDS))
    parser.add_argument("--out", type=Path, help="write all rows here")
    return parser.parse_args()


def main() -> None:
    """Run the sweep, or a share of it."""
    from studies.families.tiny_configs import FAMILIES

    chosen = _arguments()
    if chosen.share is not None:
        for name in chosen.names:
            _append(chosen.share, seen_family(name, chosen.backends))
        return
    before = stamp(0)
    results = Results(stamp=before, families=sweep(chosen.names or FAMILIES, chosen.backends))
    text = json.dumps(results.model_dump(mode="json"), indent=1) + "\n"
    if chosen.out is None:
        sys.stdout.write(text)
    else:
        chosen.out.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
