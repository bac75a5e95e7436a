"""``residua`` as a process. Answers go to stdout, progress, warnings and errors to stderr.

Nothing heavy is imported before a command acts, so that ``--help`` answers at once.
"""

import argparse
import errno
import logging
import os
import sys
import time
from collections.abc import Sequence
from types import TracebackType
from typing import TYPE_CHECKING

from audit.cli import streams
from audit.cli.parser import build_parser, completion

if TYPE_CHECKING:
    from audit.cli.answer import Answer
    from audit.schema import AuditError

_GRACE_S = 3
WIDTH, WIDE = 160, 100
"""Characters a line where the answer is no terminal's; how wide it must be for a name to stand on one line."""
_OF_PATHS = frozenset({errno.ENAMETOOLONG, errno.ELOOP, errno.ENOTDIR, errno.EISDIR, errno.ENOENT, errno.EEXIST})
"""What is wrong with a path that was given, rather than with a disk."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the process exit code. Where nobody reads on, as behind ``| head``, it ends quietly."""
    try:
        return _main(argv)
    finally:
        with streams.unread():
            sys.stdout.flush()


def _main(argv: Sequence[str] | None) -> int:
    parser = build_parser()
    args = parser.parse_args(argv)
    if args.help_exit_codes:
        _print_exit_codes()
        return 0
    if args.completion:
        with streams.unread():
            print(completion(parser, args.completion))
        return 0
    if args.verb is None:
        parser.print_help(sys.stderr)
        return 2
    from audit.wording import drop_confidences

    _end_crashes(args.debug, args.json or args.jsonl)
    _set_libraries(getattr(args, "online", False))
    drop_confidences()
    with streams.guarded():
        return _acted(args)


def _acted(args: argparse.Namespace) -> int:
    """What the command does, printed; returns the process exit code."""
    from audit.planning import Ranks
    from audit.schema import AuditError, ExitCode

    ranks = Ranks.here()
    try:
        _refuse_ranks(args, ranks.world)
        answer: Answer = args.act(args)
    except (AuditError, OSError, MemoryError) as error:
        fault = error if isinstance(error, AuditError) else _of_system(error)
        if ranks.rank:  # whoever leaves first ends them all: rank 0 says what is wrong
            time.sleep(_GRACE_S)
            return fault.code
        _print_error(args, fault)
        return fault.code
    except KeyboardInterrupt:
        message = "interrupted: finished units are kept, the same command resumes"
        print(message, file=sys.stderr)
        if args.json or args.jsonl:
            print(streams.json_line({"error": message, "exit_code": ExitCode.INTERRUPTED}))
        return ExitCode.INTERRUPTED
    if ranks.rank:
        return ExitCode.OK
    with streams.unread():
        _print_answer(answer, args.json, args.jsonl)
    return answer.exit_code


def _of_system(error: OSError | MemoryError) -> "AuditError":
    """What the system refused: memory, or to do with a file what was to be done, as a fault of a path or of the disk.
    An error about no file is raised again."""
    from audit.schema import AuditError, ExitCode

    if isinstance(error, MemoryError):
        return AuditError(
            f"not enough memory {error}".rstrip(), "free some, or look for a file that is far too large", 3
        )
    if error.filename is None:
        raise error
    code = ExitCode.INPUT if error.errno in _OF_PATHS else ExitCode.INTEGRITY
    fault = AuditError(
        f"{error.filename}: {error.strerror}", "check the path, its permissions and the space on its disk", code
    )
    fault.__cause__ = error
    return fault


def _refuse_ranks(args: argparse.Namespace, world: int) -> None:
    """AuditError (code 2) where several processes of torchrun would each do what one should; ranks above 0 are
    silent."""
    from audit.planning import Ranks
    from audit.schema import AuditError

    if world > 1 and args.verb != "run":
        raise AuditError(f"`residua {args.verb}` is done by one process", "start it without torchrun")
    args.quiet = args.quiet or Ranks.here().rank > 0


def _set_libraries(online: bool) -> None:
    if not online:
        os.environ["HF_HUB_OFFLINE"] = "1"
    os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
    # Progress is ours to show: a library's bar would break into it.
    os.environ["TQDM_DISABLE"] = "1"
    # transformers imports torchao wherever it is, which tells of kernels for cards that are not there.
    for name in ("torchao", "torch.utils._pytree"):
        logging.getLogger(name).setLevel(logging.ERROR)


def _end_crashes(debug: bool, as_json: bool) -> None:
    """From here on an error of our own ends in code 3 with an id; code 1 is the gate's."""

    def hook(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        import hashlib

        described, do = f"{kind.__name__}: {error}", "run it again with --debug and report what it prints"
        error_id = hashlib.sha256(described.encode(errors="replace")).hexdigest()[:8]
        message = streams.printable(described)
        print(f"residua broke: {message}\n  what to do: {do}\n{_identified(error_id)}", file=sys.stderr)
        if debug:
            print(streams.traceback_of(error.with_traceback(trace)), file=sys.stderr)
        with streams.unread():
            if as_json:
                print(streams.json_line({"error": message, "do": do, "error_id": error_id, "exit_code": 3}))
        sys.stderr.flush()
        os._exit(3)

    sys.excepthook = hook


# ---- printed ----------------------------------------------------------------------------------------------------
def _print_exit_codes() -> None:
    from audit.review import MEANINGS

    for code, meaning in MEANINGS:
        print(f"{code:>4}  {meaning}")


def _identified(error_id: str) -> str:
    return f"  error id: {error_id} (the same message has the same id: give it when you ask about this or report it)"


def _print_error(args: argparse.Namespace, error: "AuditError") -> None:
    """What happened, what to do and an id; the traceback before it only if it was asked for."""
    if args.debug:
        print(streams.traceback_of(error), file=sys.stderr)
    print(f"residua {args.verb}: {streams.printable(str(error))}\n{_identified(error.error_id)}", file=sys.stderr)
    if args.json or args.jsonl:
        message, do = streams.printable(error.what), streams.printable(error.do)
        print(streams.json_line({"error": message, "do": do, "error_id": error.error_id, "exit_code": error.code}))


def _print_answer(answer: "Answer", as_json: bool, as_lines: bool) -> None:
    for remark in answer.remarks:
        print(f"remark: {streams.printable(remark)}", file=sys.stderr)
    if as_json or as_lines:
        event = {"event": "answer"} if as_lines else {}
        print(streams.json_line({**answer.document, **event}))
    else:
        from rich.table import Table
        from rich.text import Text

        # Piped output has no width of its own: wide enough for the table, and nothing is cut.
        console = streams.console(False, width=None if sys.stdout.isatty() else WIDTH)
        for renderable in answer.shown:
            for column in renderable.columns if isinstance(renderable, Table) else ():
                column.overflow, column.no_wrap = "fold", column.no_wrap and console.width >= WIDE
            one_line = isinstance(renderable, Text) and bool(renderable.no_wrap)
            console.print(renderable, markup=False, highlight=False, soft_wrap=one_line)
