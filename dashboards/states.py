"""What a page shows where it has no result to show: what is missing, why, and what to do about it."""

import streamlit as st
from markupsafe import escape

from audit.judging import replicates_of
from audit.render import sentence
from audit.schema import Missing, Report
from dashboards import bar, show
from dashboards.bar import View
from dashboards.runs import Run
from dashboards.vault import shown


def panel(title: str, body: str, look: str = "", role: str = "status") -> None:
    """One block that says what is the matter; ``body`` is our own HTML."""
    show.markup(f'<div class="r-state {look}" role="{role}"><h2>{escape(title)}</h2>{body}</div>')


def line(words: str) -> str:
    """A paragraph of escaped words."""
    return f"<p>{escape(words)}</p>"


def report_or_stop(view: View) -> Report:
    """The chosen run's report; where there is none to show, say why and end the page."""
    if view.run is None:
        empty(view)
        st.stop()
    if view.run.report is None:
        stands(view.run)
        st.stop()
    return view.run.report


def empty(view: View) -> None:
    """No run in the folder: one command to fix it."""
    where = shown(str(view.vault.root))
    panel(f"No runs in {where}", line("A run is a folder that `residua run` or `residua demo` wrote. To make some:"))
    show.command("residua demo")
    st.button("Start an audit of my own", key="to-run", on_click=bar.go, args=("run",))


def stands(run: Run) -> None:
    """Why a run has nothing to show."""
    {"unfinished": _unfinished, "withheld": _withheld}.get(run.state, _unreadable)(run)


def _unfinished(run: Run) -> None:
    planned = [t for t in run.plan.tests if t.will_run] if run.plan else []
    panel(
        "This audit is not finished",
        line(f"{len(planned)} tests are planned; the verdict is withheld until the planned family is complete. No "
              "number of an unfinished audit is shown.") + line("The Run page shows how far it is, and resumes it."),
        "wait",
    )  # fmt: skip
    st.button("Open the Run page", key="to-run", on_click=bar.go, args=("run",))


def _withheld(run: Run) -> None:
    rows = [("Expected", run.expected), ("Found", run.actual)] if run.actual else []
    hashes = "".join(f"<div><dt>{name}</dt><dd><code>{escape(value)}</code></dd></div>" for name, value in rows)
    panel(
        "Integrity failure: results withheld",
        line(sentence(run.reason)) + (f"<dl>{hashes}</dl>" if hashes else "") + line(f"What to do: {run.do}."),
        "bad", role="alert",
    )  # fmt: skip
    show.command(f"residua verify {shown(str(bar.root() / run.name))}")


def _unreadable(run: Run) -> None:
    titles = {"foreign": "Another schema version", "too big": "Too big to open", "unreadable": "Cannot be read"}
    look = "" if run.state == "foreign" else "bad"
    panel(titles[run.state], line(sentence(run.reason)) + line(f"What to do: {run.do}."), look, role="alert")


def nothing(title: str, reason: str) -> None:
    """This report has no such result, and why."""
    panel(title, line(reason))


def ribbons(report: Report) -> None:
    """What every page says of the report before anything else: made-up data, missing tests, no reference."""
    if report.demo:
        words = (
            "<strong>Demo data.</strong> These models and people were made up; nothing here is about a released model."
        )
        show.markup(f'<p class="r-ribbon" role="note">{words}</p>')
    planned = {t.probe for t in report.plan.tests}
    ran = {e.measurement.probe for e in report.evidence}
    if missing := len(planned - ran):
        words = (
            f"{len(planned) - missing} of {len(planned)} planned tests gave findings; {missing} did not run or failed."
        )
        show.markup(f'<p class="r-ribbon" role="note">{words} What that means stands on the Verdict page.</p>')


def reference(report: Report) -> str:
    """Why no reference limits what can be said; empty where there is one."""
    if report.plan.case.roles.references:
        return ""
    over = replicates_of(report.evidence)
    null = "nothing" if isinstance(report.domain, Missing) else report.domain.null
    stands_for = {"ancestor": "the ancestor", "holdout": f"holdout {over.plural}"}.get(null, "nothing in this case")
    return (
        f"No reference model was given: {stands_for} stands for a model that never knew, so no floor was measured here "
        f"and a clean verdict is at most weak (this one: {report.verdict.strength})."
    )
