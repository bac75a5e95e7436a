"""Where the time of each unit of an audit goes, as text: ``python -m studies.speed.unit_trees FOLDER run CASE ...``.

The command runs in this process; each unit is sampled (pyinstrument) and leaves a tree of its calls in FOLDER: what
took less than a hundredth of the unit is left out, and so is what lies inside of torch and transformers.
"""

import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from audit.storage import write_atomic

INTERVAL_S: Final = 0.001
LEAST: Final = 0.01
HIDDEN: Final = "*/site-packages/*"


def sampled(folder: Path) -> None:
    """Let the audit's meter sample every unit, and write its tree."""
    from pyinstrument import Profiler
    from pyinstrument.renderers import ConsoleRenderer

    from audit.planning import Meter

    inner: Any = Meter.unit

    @contextmanager
    def unit(self: Any, name: str) -> Generator[None]:
        profiler = Profiler(interval=INTERVAL_S, async_mode="disabled", use_timing_thread=False)
        with inner(self, name), profiler:
            yield
        options = {"filter_threshold": LEAST, "hide_regex": None, "hide_fnmatch": HIDDEN}
        tree = profiler.output(ConsoleRenderer(processor_options=options, short_mode=True, unicode=True))
        folder.mkdir(parents=True, exist_ok=True)
        write_atomic(folder / f"{name}.txt", tree.encode())

    setattr(Meter, "unit", unit)  # noqa: B010 - a method of another module's class, replaced in this process


def main() -> int:
    """Run the command, sampled."""
    from audit.cli import main as residua

    sampled(Path(sys.argv[1]))
    return int(residua(sys.argv[2:]) or 0)


if __name__ == "__main__":
    sys.exit(main())
