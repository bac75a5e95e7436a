"""The tables of the study's page."""

from studies.small_cases.counts import Cell, OneTest, SmallCases

START, END = "<!-- counts: made by studies.small_cases.study -->", "<!-- end of counts -->"


def tables(results: SmallCases) -> str:
    """The page's tables, from the results file alone."""
    parts = [START, f"{results.worlds} worlds, {results.draws} draws of people a world.", ""]
    for fitted in (False, True):
        parts += [
            f"By tests that fit nothing{' and those that are fitted on other people' if fitted else ''}:",
            "",
            "| forget groups | holdout | worlds with a false alarm | with a fake or base not found "
            "| clean: trace, silent, neither | edited clean: trace | base and fakes: trace, silent, neither |",
            "|---|---|---|---|---|---|---|",
            *(_row(cell) for cell in results.cells if cell.fitted == fitted),
            "",
        ]
    parts += [
        "Each test alone, in first and further draws:",
        "",
        "| forget groups | holdout | test | how | base and fakes found | clean with a trace | clean below |",
        "|---|---|---|---|---|---|---|",
    ]
    parts += [_test_row(cell, test) for cell in results.cells if cell.fitted for test in cell.tests]
    listed = [f"- {name}" for name in results.exceptions] or ["- none"]
    return "\n".join([*parts, "", "Clean models with a trace, and fakes that pass, in first draws:", "", *listed, END])


def _row(cell: Cell) -> str:
    clean, edited, knowing = cell.words
    shares = [f"{w.trace}, {w.silent}, {w.undecided} of {w.audits}" for w in (clean, knowing)]
    wrong = [f"{w.wrong.k}/{w.wrong.n} (≤ {100 * w.wrong.upper95:.3g} %)" for w in (clean, knowing)]
    return (
        f"| {cell.groups} | {'16' if cell.holdout else '–'} | {wrong[0]} | {wrong[1]} | {shares[0]} "
        f"| {edited.trace} of {edited.audits} | {shares[1]} |"
    )


def _test_row(cell: Cell, test: OneTest) -> str:
    tests = "; ".join(test.tests)
    return (
        f"| {cell.groups} | {'16' if cell.holdout else '–'} | `{test.measurement}` | {tests} "
        f"| {test.found}/{test.knowing} | {test.alarms}/{test.clean} | {test.below}/{test.clean} |"
    )
