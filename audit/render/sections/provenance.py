"""What was received, what was planned before looking, and how the numbers are made again: as blocks."""

from typing import get_args

from audit.judging import replicates_of
from audit.render.sections.blocks import Block, Bullets, Cell, Code, Facts, Grid, Heading, Text
from audit.render.sections.rule_table import registered_rule, rule_blocks
from audit.render.wording.findings import sentence, title
from audit.schema import Cohort, Missing, PlannedTest, Report, Template
from audit.wording import CELL, NAME, moment, number, size, visible


def _name(text: str) -> Cell:
    return Cell(visible(text, CELL))


def _code(text: str) -> Cell:
    return Cell(visible(text, CELL), "code")


def _num(text: str) -> Cell:
    return Cell(text, "number")


# ---- items ------------------------------------------------------------------------------------------------------
def items(report: Report) -> tuple[Block, ...]:
    """Checkpoints and data as received, with their hashes, before and after."""
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
    columns = ("Role", "Path", "Family", "Size", "Fingerprint (SHA-256)", "Verified")
    seen = f"when the plan was registered, {moment(report.registered)}," if report.registered else "before measuring"
    blocks: list[Block] = [
        Text(
            f"Everything was hashed {seen} and the checkpoints once more after the last measurement. Copies and "
            "derivatives of these files were not examined, and nothing is said about them."
        ),
        Grid("Checkpoints received", columns, rows),
    ]
    if released := [f"{visible(x.role, NAME)}: {visible(x.released)}" for x in report.exhibits if x.released]:
        blocks += [Text("Handed in as codes, which stand for weights:"), Bullets(tuple(map(sentence, released)))]
    if files:
        blocks.append(Grid("Files of the checkpoints", ("Role", "File", "SHA-256"), files))
    hashes, names = report.plan.data_sha256, {*report.plan.data_sha256, *report.cohorts}
    data = tuple(
        (_name(name), _name(_counts(report.cohorts.get(name, {}))), _code(hashes.get(name, "no file of its own")))
        for name in sorted(names, key=_cohort_order)
    )
    if data:
        blocks.append(Grid("Data received", ("Cohort", "Holds", "SHA-256"), data))
    if report.plan.notes:
        blocks += [Text("Of the data, before anything was measured:"),
                   Bullets(tuple(sentence(visible(note)) for note in report.plan.notes))]  # fmt: skip
    return tuple(blocks)


def _counts(counts: dict[str, int]) -> str:
    order = ("items", "groups", "audit_items", "audit_groups")
    ranked = sorted(counts.items(), key=lambda pair: (order.index(pair[0]) if pair[0] in order else len(order), pair))
    return ", ".join(f"{v} {visible(k, NAME).replace('_', ' ')}" for k, v in ranked) or "not counted"


def _cohort_order(name: str) -> tuple[int, str]:
    order = get_args(Cohort)
    return (order.index(name) if name in order else len(order), name)


# ---- method -----------------------------------------------------------------------------------------------------
def method(report: Report) -> tuple[Block, ...]:
    """When the plan was registered and how the data were read, and the decision rule as a table."""
    written = report.plan
    when = moment(report.registered) if report.registered else "not recorded by the version that made this report"
    return (
        Text(
            "The tests, their settings and the rule were written down before anything was measured. The plan hash "
            "names them."
        ),
        Facts((("Plan hash", visible(written.plan_hash)), ("Registered", f"{when}, before looking"),
               ("Code version", visible(written.code_version)),
               _asked(report), *_attention(report),
               ("Split of the data",
                f"by {visible(written.case.data.group, NAME)}, seed {written.case.data.split_seed}"))),
        Heading("Decision rule"),
        *rule_blocks(report),
    )  # fmt: skip


def plan(report: Report) -> tuple[Block, ...]:
    """Every planned test with its question and cost, the rule as registered, and every deviation and exclusion."""
    read = "patches" if replicates_of(report.evidence).of_images else "tokens"
    rows = tuple(
        (
            Cell(visible(t.probe, NAME).replace("_", " ")), _name(t.question),
            _num(f"{t.cost.fwd_tokens:,}".replace(",", " ")),
            Cell(_runs(t)),
        )
        for t in report.plan.tests
    )  # fmt: skip
    return (
        Grid("Planned tests", ("Test", "Question", f"Forward {read}", "Will it run?"), rows),
        Heading("The rule as registered"),
        registered_rule(report),
        Heading("Deviations and exclusions"),
        Bullets(_deviations(report)),
    )


def _runs(test: PlannedTest) -> str:
    if not test.will_run:
        return f"no: {visible(test.reason, CELL) or 'no reason is recorded'}"
    return f"yes, but it cannot decide: {visible(test.undecidable, CELL)}" if test.undecidable else "yes"


def _asked(report: Report) -> tuple[str, str]:
    """How an item is put to a model: as a prompt, or as an image."""
    if replicates_of(report.evidence).of_images:
        return "Items", "images, as the image processor in base's folder leaves them; the answer is the class"
    words = visible(_one_line(report.plan.case.template), CELL)
    asked_of = ", asked of an image as the processor in base's folder leaves it"
    return "Prompt template", words + (asked_of if replicates_of(report.evidence).modality == "image+text" else "")


def _attention(report: Report) -> tuple[tuple[str, str], ...]:
    """How attention was computed, whatever the checkpoints' settings wish for; nothing of reports that do not say."""
    flags = report.environment.flags
    if "attention_used" not in flags:
        return ()
    chosen = "chosen by the models' classes" if flags.get("attention") == "default" else "as --attention says"
    wishes = any(hashed.startswith("not followed") for x in report.exhibits for hashed in x.files.values())
    instead = ", not as settings of the checkpoints ask (listed under items received)" if wishes else ""
    patterns = "" if flags["attention_used"] == "eager" else "; patterns, where a test reads them, by eager"
    words = f"{visible(flags['attention_used'], CELL)}, {chosen}{instead}{patterns}"
    return (("Attention", words),)


def _one_line(template: Template) -> str:
    """Prompt and answer as they are typed in a case file, and what else of the template is not as usual."""
    others = {"seam": template.seam, "chat template": template.chat_template, **template.variables}
    unusual = [f"{name} {value}" for name, value in others.items() if value not in ("", "joint")]
    return ", ".join((template.prompt + template.answer, *["chat"][: template.chat], *unusual)).replace("\n", "\\n")


def _deviations(report: Report) -> tuple[str, ...]:
    """What did not go as planned, and what left a count."""
    refused = {t.probe for t in report.plan.tests if not t.will_run}
    deviations = [f"{visible(t.probe, NAME)} was not planned to run: {sentence(t.reason)}" for t in report.plan.tests
            if not t.will_run]  # fmt: skip
    deviations += [f"{visible(s.probe, NAME)} was planned and not run: {sentence(s.reason)}" for s in report.skips
             if s.probe not in refused]  # fmt: skip
    deviations += [f"{visible(f.probe, NAME)} was planned and failed: {sentence(f.error)}" for f in report.failures]
    for m in (e.measurement for e in report.evidence):
        if m.n.errored or m.n.unscored:
            deviations.append(
                f"{title(m)}: {m.n.errored} items errored and {m.n.unscored} unscored, left out of the mean."
            )
    halved = report.environment.flags.get("halvings", "0")
    if halved != "0":
        deviations.append(f"Memory ran short: batches were halved {visible(halved, NAME)} times.")
    return tuple(deviations) or ("None: every planned test ran on every item.",)


# ---- reproduction -----------------------------------------------------------------------------------------------
def reproduction(report: Report) -> tuple[Block, ...]:
    """The command, where it ran and with which seeds, and which tolerance to expect."""
    env = report.environment
    seeds = sorted({e.measurement.seed for e in report.evidence})
    cpu = sum(t.cpu_s for t in report.timings)
    rows = (
        ("Tool", ", ".join(f"{visible(k, NAME)} {visible(v, NAME)}" for k, v in sorted(report.tool.items()))),
        ("Ran on", f"{visible(env.device, NAME)}, {visible(env.dtype, NAME)}, {visible(env.backend, NAME)} backend, "
                   f"{env.threads} thread{'' if env.threads == 1 else 's'}"),
        ("Seeds", f"{', '.join(str(s) for s in seeds) or 'none'}; every draw takes its seed from these"),
        ("Run time", f"{number(cpu)} CPU-seconds in {len(report.timings)} units of work"),
        ("Expected tolerance", "With the same code, packages, device and threads: the same numbers to the digit. With "
         "the same mask key also the same report id. Elsewhere sums are rounded otherwise, so that last digits differ. "
         "A number that lies at a threshold can then fall on its other side."),
    )  # fmt: skip
    return (
        Text("Run where case.toml lies, with the files listed under items received (appendix):"),
        Code(visible(report.reproduce)),
        Facts(rows),
    )


def environment(report: Report) -> tuple[Block, ...]:
    """Packages and flags, and the hash of every table of items."""
    env = report.environment
    flags = ", ".join(f"{visible(k, NAME)} {visible(v, NAME)}" for k, v in sorted(env.flags.items()))
    packages = ", ".join(f"{visible(k, NAME)} {visible(v, NAME)}" for k, v in sorted(env.packages.items()))
    rows = (
        ("Python", f"{visible(env.python, NAME)}, {visible(env.platform, NAME)}"),
        ("Packages", packages),
        ("Determinism and other flags", flags or "none"),
    )
    tables = {m.path: m for m in (e.measurement.items for e in report.evidence) if not isinstance(m, Missing)}
    listed = tuple((_code(t.path), _num(str(t.rows)), _code(t.sha256)) for _, t in sorted(tables.items()))
    return (
        Facts(rows),
        Text("The hash of every other output stands in manifest.sha256 beside this report."),
        *((Grid("Item tables beside this report", ("File", "Rows", "SHA-256"), listed),) if listed else ()),
    )
