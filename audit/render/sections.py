"""The sections of a report, in their order, as blocks: the one place that says what every view shows.

Page one answers four questions: gone or not, how sure, what was not tested, how to repeat it. Every planned test is
listed with its numbers, the silent ones too.
"""

from typing import get_args

from audit.findings import Report
from audit.nouns import Cohort, Missing, Template
from audit.render.blocks import Block, Bullets, Cell, Code, Facts, Grid, Heading, Section, Text
from audit.render.findings import controls, findings
from audit.render.reference import GLOSSARY, PROPOSITIONS
from audit.render.wording import (
    CELL,
    NAME,
    number,
    sentence,
    size,
    spoken,
    verdict_sentence,
    visible,
)


def sections(report: Report) -> tuple[Section, ...]:
    """All sections that the report has content for, in the order of the printed document."""
    found = (
        Section("question", "Question and propositions", _question(report)),
        Section("conclusion", "Conclusion", _conclusion(report)),
        Section("items", "Items received and integrity", _items(report)),
        Section("method", "Method and decision rule", _method(report)),
        Section("findings", "Findings", findings(report)),
        Section("controls", "Controls and detection limits", controls(report)),
        Section("not-run", "Not run and failed", _not_run(report)),
        Section("coverage", "Coverage", _coverage(report)),
        Section("reproduction", "Reproduction", _reproduction(report)),
        Section("glossary", "Glossary", (Facts(GLOSSARY),)),
    )
    return tuple(s for s in found if s.blocks)


def _name(text: str) -> Cell:
    return Cell(visible(text, CELL))


def _code(text: str) -> Cell:
    return Cell(visible(text, CELL), "code")


def _num(text: str) -> Cell:
    return Cell(text, "number")


# ---- question, conclusion ---------------------------------------------------------------------------------------
def _question(report: Report) -> tuple[Block, ...]:
    case = report.plan.case
    edited = case.edited if isinstance(case.edited, str) else f"{len(case.edited)} named items"
    told = {"all": "the whole forget set", "unknown": "an unknown part of the forget set"}.get(edited, edited)
    counts = [f"{visible(k, NAME)}: {_counts(report.cohorts[k])}" for k in sorted(report.cohorts, key=_cohort_order)]
    return (
        Text(
            "What is left, in the suspect checkpoint, of the forget set F that it was asked to forget, and how sure "
            "can that be?"
        ),
        Facts((*PROPOSITIONS, ("What the edit saw", sentence(f"the suspect was edited on {told}")))),
        Bullets(tuple(counts)),
    )


def _counts(counts: dict[str, int]) -> str:
    order = ("items", "groups", "audit_items", "audit_groups")
    ranked = sorted(counts.items(), key=lambda pair: (order.index(pair[0]) if pair[0] in order else len(order), pair))
    return ", ".join(f"{v} {visible(k, NAME).replace('_', ' ')}" for k, v in ranked)


def _cohort_order(name: str) -> tuple[int, str]:
    order = get_args(Cohort)
    return (order.index(name) if name in order else len(order), name)


def _conclusion(report: Report) -> tuple[Block, ...]:
    verdict = report.verdict
    ran = len({e.measurement.probe for e in report.evidence})
    planned = len({t.probe for t in report.plan.tests})
    scope = (
        f"{ran} of {planned} planned tests gave findings. This speaks only about the files listed under Items received "
        "and the attacks listed as tested under Coverage."
    )
    limits = tuple(dict.fromkeys(sentence(x) for x in (*verdict.limits, *report.limits)))[:5]
    blocks: list[Block] = [Text(verdict_sentence(report), "lead")]
    blocks.append(Bullets(tuple(sentence(spoken(report, x)) for x in verdict.because)))
    blocks.append(Text(f"Strength of the verdict: {verdict.strength}. Basis: {verdict.basis}. {scope}"))
    blocks += [Heading("Limits"), Bullets(limits)]
    if verdict.would_change:
        blocks += [Heading("What would change it"), Bullets(tuple(sentence(x) for x in verdict.would_change))]
    return tuple(blocks)


# ---- items, method ----------------------------------------------------------------------------------------------
def _items(report: Report) -> tuple[Block, ...]:
    rows = tuple(
        (
            Cell(visible(x.role, NAME), "tight"), _code(x.path), _name(x.family), _num(size(x.size_bytes)),
            _code(x.fingerprint), Cell("before and after" if x.verified_after else "before only", "number"),
        )
        for x in report.exhibits
    )  # fmt: skip
    files = tuple(
        (_name(x.role), _code(name), _code(digest)) for x in report.exhibits for name, digest in sorted(x.files.items())
    )
    data = tuple((_name(name), _code(digest)) for name, digest in sorted(report.plan.data_sha256.items()))
    columns = ("Role", "Path", "Family", "Size", "Fingerprint (SHA-256)", "Verified")
    blocks: list[Block] = [
        Text(
            "Nothing is said about copies or derivatives of these files. No text of the data is part of this report; "
            "it lies in the item tables beside it."
        ),
        Grid("Checkpoints received", columns, rows),
    ]
    if files:
        blocks.append(Grid("Files of the checkpoints", ("Role", "File", "SHA-256"), files, folded=True))
    if data:
        blocks.append(Grid("Data files", ("Cohort", "SHA-256"), data))
    return tuple(blocks)


def _method(report: Report) -> tuple[Block, ...]:
    plan = report.plan
    rows = tuple(
        (
            Cell(visible(t.probe, NAME).replace("_", " ")), _name(t.question),
            _num(f"{t.cost.fwd_tokens:,}".replace(",", " ")),
            Cell("yes" if t.will_run else f"no: {visible(t.reason, CELL) or 'no reason is recorded'}"),
        )
        for t in plan.tests
    )  # fmt: skip
    return (
        Text("The tests, their settings and the decision rule were fixed before anything was measured."),
        Facts((("Plan hash", visible(plan.plan_hash)), ("Code version", visible(plan.code_version)),
               ("Prompt template", visible(_one_line(plan.case.template), CELL)),
               ("Split of the data", f"by {visible(plan.case.data.group, NAME)}, seed {plan.case.data.split_seed}"))),
        Grid("Planned tests", ("Test", "Question", "Forward tokens", "Will it run?"), rows),
        Heading("Decision rule"),
        Bullets(tuple(sentence(x) for x in report.decision_rule), plain=True),
        *_calibrations(report),
    )  # fmt: skip


def _one_line(template: Template) -> str:
    """Prompt and answer as they are typed in a case file."""
    return (template.prompt + template.answer).replace("\n", "\\n")


def _calibrations(report: Report) -> tuple[Block, ...]:
    """Which calibration judged which test, what it is not valid for, and what renews those that did not."""
    if not report.calibrations:
        return ()
    rows = tuple(
        (
            Cell(visible(use.probe, NAME).replace("_", " ")), Cell(visible(use.status, NAME)),
            _name(f"{use.pool}, {use.worlds} worlds" if use.pool else "none"), Cell(visible(use.because)),
            _code(use.sha256[:12]), _code(use.renew),
        )
        for use in report.calibrations
    )  # fmt: skip
    columns = ("Test", "Calibration", "Made from", "Valid for, or why it did not judge", "SHA-256", "Renewed by")
    return Heading("Calibrations"), Grid("Which calibration judged which test", columns, rows)


# ---- not run, coverage, reproduction ----------------------------------------------------------------------------
def _not_run(report: Report) -> tuple[Block, ...]:
    blocks: list[Block] = []
    if report.skips:
        rows = tuple((_name(s.probe), _name(s.reason), _name(s.consequence)) for s in report.skips)
        blocks.append(Grid("Not run", ("Test", "Reason", "Consequence for the conclusion"), rows))
    if report.failures:
        rows = tuple((_name(f.probe), _name(f.error), _code(f.error_id)) for f in report.failures)
        blocks.append(Grid("Failed", ("Test", "Error", "Error id, as in the log"), rows))
    return tuple(blocks) or (Text("Every planned test ran, and none failed."),)


def _coverage(report: Report) -> tuple[Block, ...]:
    rows = tuple(tuple(_name(cell) for cell in row) for row in report.coverage)
    if not rows:
        return ()
    return (
        Text("An attack that is not listed as tested is not covered by this report."),
        Grid("Attack families by access", ("Attack family", "Access", "Tested"), rows),
    )


def _reproduction(report: Report) -> tuple[Block, ...]:
    env = report.environment
    flags = ", ".join(f"{visible(k, NAME)} {visible(v, NAME)}" for k, v in sorted(env.flags.items()))
    cpu = sum(t.cpu_s for t in report.timings)
    seeds = sorted({e.measurement.seed for e in report.evidence})
    packages = ", ".join(f"{visible(k, NAME)} {visible(v, NAME)}" for k, v in sorted(env.packages.items()))
    rows = (
        ("Tool", ", ".join(f"{visible(k, NAME)} {visible(v, NAME)}" for k, v in sorted(report.tool.items()))),
        ("Python", f"{visible(env.python, NAME)}, {visible(env.platform, NAME)}"),
        ("Packages", packages),
        ("Ran on", f"{visible(env.device, NAME)}, {visible(env.dtype, NAME)}, {visible(env.backend, NAME)} backend, "
                   f"{env.threads} threads"),
        ("Flags", flags or "none"),
        ("Seeds", ", ".join(str(s) for s in seeds) or "none"),
        ("Run time", f"{number(cpu)} CPU-seconds in {len(report.timings)} units of work"),
    )  # fmt: skip
    tables = {m.path: m for m in (e.measurement.items for e in report.evidence) if not isinstance(m, Missing)}
    blocks: list[Block] = [Code(visible(report.reproduce)), Facts(rows)]
    if tables:
        listed = tuple((_code(t.path), _num(str(t.rows)), _code(t.sha256)) for _, t in sorted(tables.items()))
        blocks.append(Grid("Item tables beside this report", ("File", "Rows", "SHA-256"), listed, folded=True))
    return tuple(blocks)
