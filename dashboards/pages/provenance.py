"""Can I trust the inputs?"""

import streamlit as st

from audit.render import sentence
from audit.runs import NAME, chain, difference
from audit.schema import Report
from audit.wording import NAME as SHORT
from audit.wording import moment, size, visible
from dashboards import bar, integrity, show, states
from dashboards.vault import MB, Refused

ORDER = 95
SECTION = "Keep"
CAP = 4 * MB


def custody(report: Report) -> None:
    """What was received, what it hashed to, and when it was looked at again."""
    rows = [
        [visible(x.role, SHORT), visible(x.path), visible(x.family, SHORT), size(x.size_bytes), visible(x.fingerprint),
         "before and after" if x.verified_after else "before only"]
        for x in report.exhibits
    ]  # fmt: skip
    columns = ("Role", "Path", "Family", "Size", "SHA-256", "Verified")
    show.table(show.grid("Checkpoints received", columns, rows, ("", "code", "", "number", "code")))
    files = [
        [visible(x.role, SHORT), visible(name), visible(sha)] for x in report.exhibits for name, sha in x.files.items()
    ]
    with st.expander(f"Files of the checkpoints ({len(files)})"):
        show.table(show.grid("Files of the checkpoints", ("Role", "File", "SHA-256"), files, ("", "code", "code")))


def environment(report: Report) -> None:
    """Where and with what the numbers were made."""
    env = report.environment
    pairs = [("Issued", moment(report.created)), ("Code", report.plan.code_version), ("Python", env.python),
             ("Machine", env.platform), ("Ran on", f"{env.device}, {env.dtype}, {env.backend}, {env.threads} threads"),
             ("Plan hash", report.plan.plan_hash),
             ("Seeds", ", ".join(sorted({str(e.measurement.seed) for e in report.evidence})) or "none")]  # fmt: skip
    pairs += [(name, value) for name, value in sorted({**env.packages, **env.flags}.items())]
    show.facts([(visible(name, SHORT), visible(value, 2 * SHORT)) for name, value in pairs])


def log(view: bar.View) -> None:
    """The chain of who received what and when the report was issued, with every fault in it."""
    assert view.run is not None
    try:
        trail = chain(view.vault.read(f"{view.run.name}/{NAME}", CAP))
    except Refused:
        show.text("This run has no custody log: it was made by an earlier version, or the log was removed.")
        return
    if trail.faults:
        states.panel("The chain is broken", "".join(states.line(fault) for fault in trail.faults), "bad", role="alert")
    entries = ((line, "; ".join(f"{k} {v}" for k, v in line.about.items())) for line in trail.lines)
    rows = [[str(line.n), moment(line.time), line.action, visible(about), line.tool] for line, about in entries]
    columns = ("Line", "When", "What", "About", "By")
    show.table(show.grid("Custody log", columns, rows, ("", "", "", "code", "code")))


view = bar.current()
report = states.report_or_stop(view)
assert view.run is not None
show.heading("Custody")
custody(report)
if st.button("Hash every file of this run again", key="rehash"):
    with st.spinner("Hashing…"):
        hashed = integrity.check(view.vault, view.run.name)
    bad = [f for f in hashed if f.state != "as listed"]
    if bad:
        states.panel(f"{len(bad)} of {len(hashed)} files are not as the manifest lists them", "", "bad", role="alert")
    else:
        states.panel(f"All {len(hashed)} files are as the manifest lists them", "")
    cells = [[f.path, f.state, f.sha256] for f in (*bad, *(f for f in hashed if f.state == "as listed"))]
    show.table(show.grid("Files of this run", ("File", "State", "SHA-256"), cells, ("code", "", "code")))
show.note("A manifest shows that files changed, not who wrote it: compare the report id with the one you were given.")
show.command(f"residua verify {view.vault.root / view.run.name}")

if report.plan.notes:
    show.heading("How the data were read")
    show.bullets([sentence(visible(note)) for note in report.plan.notes])
show.heading("Custody log")
log(view)
show.heading("Environment and seeds")
environment(report)

show.heading("Configuration against another run")
others = {r.address: r for r in view.rows() if r.address != view.run.name}
against = st.selectbox("Other run", ["none", *others], key="against", bind="query-params",
                       format_func=lambda a: others[a].name if a in others else a)  # fmt: skip
if against in others:
    lines = difference(others[against].report.plan, report.plan)
    if lines:
        show.bullets([visible(line) for line in lines])
    else:
        show.text("The two plans are the same.")

show.heading("Deviations")
deviations = [f"{s.probe} was not run: {s.reason}" for s in report.skips]
deviations += [f"{f.probe} failed: {f.error} (error id {f.error_id})" for f in report.failures]
show.bullets([visible(x) for x in deviations] or ["None: every planned test ran as planned."])
