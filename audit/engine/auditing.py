"""One audit, from its case to its report: what is finished and unchanged answers without torch."""

from pathlib import Path
from typing import TYPE_CHECKING

from audit.engine.unchanged import AnyCase, case_file_of, finished_step, issued_as_planned
from audit.planning import Ranks, RunSettings, Watch, one_of_ranks, unwatched
from audit.schema import Report

if TYPE_CHECKING:
    from audit.bench import Bench
    from audit.engine.runner import MakeBench


def run(
    case: AnyCase,
    out: Path | str,
    settings: RunSettings | None = None,
    bench: "Bench | MakeBench | None" = None,
    watch: Watch | None = None,
) -> Report:
    """Audit one suspect and return the report that was written to ``out``.

    An unfinished run in ``out`` with the same plan is resumed, a finished one is returned as it is. Raises AuditError:
    code 2 for bad input or another plan in ``out``, 3 for integrity, 4 if base does not recall (blind here).
    """
    case_file, given, watch = case_file_of(case), settings or RunSettings(), watch or unwatched
    if bench is None and Ranks.here().world == 1:
        report = issued_as_planned(case_file, Path(out), given)
        if report is not None:
            watch(finished_step(Path(out)))
            return report
    from audit.engine.runner import Run, prepare

    with one_of_ranks(Path(out), given) as (own, settled):
        return Run(prepare(case_file, own, settled, bench), settled, watch).report()
