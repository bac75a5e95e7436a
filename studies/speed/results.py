"""What a benchmark found, as frozen nouns: written to results.json, printed as tables."""

from statistics import median

from audit.schema import Interval, Missing, Record
from studies.provenance import Stamp


class Ratio(Record):
    """The median over repeats of one method's CPU-seconds against another's in the same repeat, with its interval."""

    against: str
    median: float
    ci95: Interval


class TimingRow(Record):
    """One method at one size: CPU-seconds of one thread a call, median and range over repeats, and ratios."""

    size: str
    method: str
    mode: str
    cpu_s: float
    cpu_s_min: float
    cpu_s_max: float
    repeats: int
    calls_per_repeat: int
    ratios: tuple[Ratio, ...]


class MemoryRow(Record):
    """Peak resident memory of one method in processes of its own, in MiB, and the part that its result takes."""

    size: str
    method: str
    mode: str
    peaks_mib: tuple[float, ...]
    returned_mib: float
    block_output_mib: float

    @property
    def peak_mib(self) -> float:
        """The median over processes."""
        return median(self.peaks_mib)


class CommandRow(Record):
    """CPU-seconds (with children) and wall seconds of a command line: median over repeats."""

    command: str
    condition: str
    cpu_s: float
    wall_s: float
    repeats: int
    exit_code: int


class ReadoutRow(Record):
    """A read-out and what it replaces: CPU-seconds of one thread of each, and how many times the one is the other."""

    what: str
    cpu_s: float
    against: str
    against_cpu_s: float
    ratio: float


class Bound(Record):
    """A promise and what was measured. Met when the interval reaches the bound."""

    claim: str
    size: str
    bound: float
    measured: float
    ci95: Interval | Missing
    met: bool


class Part(Record):
    """One part of the suite: where its numbers come from, and the command that made them."""

    stamp: Stamp
    command: str


class Results(Record):
    """What was measured, part by part; a part that is measured again replaces its rows."""

    schema_version: int = 1
    parts: dict[str, Part] = {}
    timings: tuple[TimingRow, ...] = ()
    memory: tuple[MemoryRow, ...] = ()
    commands: tuple[CommandRow, ...] = ()
    readouts: tuple[ReadoutRow, ...] = ()
    bounds: tuple[Bound, ...] = ()
