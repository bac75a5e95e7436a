"""What will be run, how long, and how much memory?"""

import shlex
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import Final

import streamlit as st
from pydantic import JsonValue, ValidationError
from streamlit.delta_generator import DeltaGenerator

from audit.plugins import describe
from audit.schema import AuditError, Plan, Report
from audit.wording import NAME, size, visible
from dashboards import bar, case_form, show, starting, states, workers
from dashboards import verbs as started_verbs
from dashboards.price import Price
from dashboards.progress import progress, span
from dashboards.vault import shown
from dashboards.verbs import WORDS, Asked
from dashboards.workers import Heard, Worker

ORDER = 80
SECTION = "Work"
WHOLE_FOLDER = True
PLANNED: Final = "_planned"
STARTED: Final = "_started"


@st.cache_resource(show_spinner="Asking what this Residua can do…")
def verbs(folder: Path) -> tuple[str, ...]:
    """What can be started here."""
    return workers.verbs(folder)


def form(view: bar.View) -> None:
    """Which case, what to do with it, into which folder, and how; then plan it, or start it."""
    if (chosen := st.session_state.pop(case_form.CHOSEN, None)) is not None:
        st.session_state["case"] = chosen
    case = starting.case_box(view)
    with st.expander("No case file yet? Write one", expanded=case_form.WRITTEN in st.session_state):
        case_form.draw(view)
    first, second = st.columns([2, 3])
    verb = first.selectbox("What", verbs(view.vault.root), key="verb", format_func=lambda v: WORDS.get(v, v)) or "run"
    asked = asked_for(verb, case, second)
    flags = starting.setting_flags()
    if not case or not starting.is_below(asked.out):
        show.note("Name a case file, and a folder below the folder of runs.")
        return
    arguments = started_verbs.arguments(verb, asked, view.vault.root, flags)
    show.sub("As a command")
    show.command(shlex.join(["residua", verb, *arguments]))
    place = st.container(horizontal=True)
    if place.button("Plan", key="plan", help="Says what would be done and what it costs. Writes nothing."):
        what, given = started_verbs.planned(verb, asked, view.vault.root, flags)
        st.session_state[PLANNED] = workers.start(view.vault, what, given, asked.out).id
    if place.button("Start", key="start", type="primary"):
        st.session_state[STARTED] = workers.start(view.vault, verb, arguments, asked.out).id
    place.button(
        "Make a model forget first (Edit)", key="to-edit", on_click=bar.go, args=("edit",), kwargs={"of": case}
    )


def asked_for(verb: str, case: str, place: DeltaGenerator) -> Asked:
    """The case and the folder, and what a verb takes beside them."""
    out = started_verbs.suggested(case, verb) if case else "my-audit"
    if verb == "calibrate":
        show.note(
            "Decoys are taught to the case's base. What is made lies beside the case file, and runs of it use it."
        )
        limit = place.text_input("At most this long (such as 30m or 2h; empty: 19 worlds)", key="time-limit")
        return Asked(case, out, time=limit.strip())
    out = place.text_input("Folder, below the folder of runs", out, key=f"out-{verb}-{case}").strip()
    if verb != "sweep":
        return Asked(case, out)
    lines = st.text_area("Suspects, one a line: checkpoints, adapters of base, or a folder that holds such",
                         key="suspects")  # fmt: skip
    return Asked(case, out, tuple(line.strip() for line in lines.splitlines() if line.strip()))


# ---- the plan ---------------------------------------------------------------------------------------------------
@st.fragment(run_every=1)
def planning(view: bar.View, worker: Worker) -> None:
    """What the plan says, as soon as it is made."""
    outcome = workers.heard(view.vault, worker)
    if outcome.ending == "running":
        st.progress(0.0, text="Planning: opening the models and counting tokens…")
        return
    if outcome.ending != "finished":
        states.panel("This case cannot be planned", states.line(workers.trouble(outcome)), "bad", role="alert")
        return
    if worker.verb != "plan":
        answered(outcome)
        return
    try:
        plan = Plan.model_validate({k: v for k, v in outcome.answer.items() if k in Plan.model_fields})
    except ValidationError:
        states.panel("This plan cannot be read", "<p>It is of another version.</p>", "bad", role="alert")
        return
    table(plan, outcome.answer)


def answered(outcome: Heard) -> None:
    """What a dry run answered: its plain values, and each of its lists as a table."""
    plain = {k: v for k, v in outcome.answer.items() if isinstance(v, str | int | float)}
    show.facts([(visible(k, NAME).replace("_", " ").capitalize(), visible(str(v), NAME)) for k, v in plain.items()])
    for name, rows in outcome.answer.items():
        parts = [row for row in rows if isinstance(row, dict)] if isinstance(rows, list) else []
        heads = list(dict.fromkeys(k for row in parts for k, v in row.items() if not isinstance(v, list | dict)))
        if parts and heads:
            cells = [[visible(str(row.get(head, "")), NAME) for head in heads] for row in parts]
            show.table(show.grid(visible(name, NAME), [visible(head, NAME) for head in heads], cells))


def table(plan: Plan, answer: dict[str, JsonValue]) -> None:
    """Every test with its cost, and the reason where it will not run."""
    price = Price.of(answer)
    running = [t for t in plan.tests if t.will_run]
    show.facts([("Tests that will run", f"{len(running)} of {len(plan.tests)}"),
                ("Time", price.time), ("Memory", price.memory)])  # fmt: skip
    rows = []
    for test in plan.tests:
        cost, reason = test.cost, f"no: {visible(test.reason)}"
        counts = (f"{cost.fwd_tokens:,}", f"{cost.bwd_tokens:,}", f"{cost.steps:,}", str(cost.resident))
        own = price.units.get(test.probe, "with the others") if test.will_run else "none"
        name = test.probe.replace("_", " ")
        rows.append([name, "yes" if test.will_run else reason, *counts, own, visible(test.question)])
    columns = ("Test", "Will it run?", "Tokens forward", "Backward", "Steps", "Models held", "Time, memory", "Question")
    tones = ("", "", "number", "number", "number", "number", "number")
    show.table(show.grid(f"Plan of {visible(plan.case.name, NAME)}", columns, rows, tones))


# ---- the workers ------------------------------------------------------------------------------------------------
def timed(view: bar.View, worker: Worker) -> list[Report]:
    """Finished reports beside a run, whose times are known."""
    beside = PurePosixPath(worker.out).parent
    peers = [run for run in view.peers() if PurePosixPath(run.name).parent == beside]
    return [run.report for run in peers if run.report is not None]


@st.fragment(run_every=1)
def live(view: bar.View, worker: Worker, finished: list[Report]) -> None:
    """One worker: how far it is, and what can be done about it."""
    outcome = workers.heard(view.vault, worker)
    with st.container(border=True):
        words = {"running": "is running", "finished": "is finished", "failed": "failed", "cancelled": "was cancelled"}
        show.sub(f"{shown(worker.out)}: {worker.verb} {words[outcome.ending]}")
        bars(view, worker, outcome, finished)
        buttons(view, worker, outcome)


def bars(view: bar.View, worker: Worker, outcome: Heard, finished: list[Report]) -> None:
    """The progress of a worker in numbers, from its files."""
    if worker.verb in ("sweep", "calibrate"):
        stepped(view, worker, outcome)
        return
    seen = progress(view.vault, worker.out, finished, datetime.now(UTC))
    if seen is not None and seen.total:
        st.progress(seen.done / seen.total, text=f"{seen.done} of {seen.total} tests")
        left = "not known" if seen.left is None else f"{span(seen.left.lo)} to {span(seen.left.hi)}"
        facts = [("In hand", seen.current.replace("_", " ") or "nothing"), ("Elapsed", span(seen.elapsed_s)),
                ("Left, from finished runs here", left), ("Tests failed", str(seen.failed))]  # fmt: skip
        if (process := workers.process(worker)) is not None:
            facts.append(("Memory", size(process.memory_info().rss)))
        show.facts(facts if outcome.ending == "running" else facts[1:2] + facts[3:4])
        with st.expander("Last events"):
            show.table(show.grid("Last events", ("At", "Event", "Detail"), [list(e) for e in seen.last]))
    elif outcome.ending == "running":
        st.progress(0.0, text="Opening the models, checking them and planning…")
    if outcome.ending == "failed":
        states.panel("It failed", states.line(workers.trouble(outcome)), "bad", role="alert")


def stepped(view: bar.View, worker: Worker, outcome: Heard) -> None:
    """The progress of what has no event log of its own: the last step that it told of."""
    if outcome.ending == "running":
        step = started_verbs.last_step(outcome)
        st.progress(
            step.share, text=visible(step.words, NAME) + (f": {step.done} of {step.total}" if step.total else "")
        )
    if worker.verb == "sweep":
        done, begun = started_verbs.finished_below(view.vault, worker.out)
        show.facts([("Audits", f"{done} finished of {begun} begun")])
    if outcome.ending == "failed":
        states.panel("It failed", states.line(workers.trouble(outcome)), "bad", role="alert")


def buttons(view: bar.View, worker: Worker, outcome: Heard) -> None:
    """Cancel what runs, resume what stopped, open what is finished."""
    if outcome.ending == "running" and worker.verb in ("sweep", "calibrate"):
        st.button("Stop", key=f"stop-{worker.id}", on_click=workers.stop, args=(worker,),
                  help="What is finished is kept; the same command goes on from there.")  # fmt: skip
    elif outcome.ending == "running":
        cancelling = view.vault.stamp(f"{worker.out}/cancel") is not None
        if cancelling:
            show.note("It stops when the test in hand is finished; finished tests are kept.")
            st.button(
                "Stop now, and lose the test in hand", key=f"stop-{worker.id}", on_click=workers.stop, args=(worker,)
            )
        else:
            st.button("Cancel", key=f"cancel-{worker.id}", on_click=workers.cancel, args=(view.vault, worker))
    elif outcome.ending in ("cancelled", "failed"):
        if st.button("Resume", key=f"resume-{worker.id}", help="Finished tests are not measured again."):
            workers.start(view.vault, worker.verb, worker.arguments, worker.out)
            st.rerun(scope="app")
    elif worker.verb == "sweep":
        if st.button("Open the table of audits", key=f"open-{worker.id}", on_click=bar.go, args=("audits",)):
            st.rerun(scope="app")
    elif worker.verb == "calibrate":
        show.note("Runs of this case use it from now on. A finished run stays as it was judged: give another folder.")
    elif view.vault.stamp(f"{worker.out}/manifest.sha256") is not None:
        where = {"run": worker.out}
        opened = st.button(
            "Open its verdict", key=f"open-{worker.id}", on_click=bar.go, args=("verdict",), kwargs=where
        )
        if opened:  # a click inside a fragment runs the fragment alone
            st.rerun(scope="app")


def plugins(package: str, caption: str) -> None:
    """What a folder of plug-ins offers, read from their files."""
    try:
        listed = describe(package)
    except AuditError as error:
        states.nothing(f"{caption} cannot be listed", error.what)
        return
    rows = [[d.name, d.question, ", ".join(f"{s.name} = {s.default}" for s in d.settings if s.default)] for d in listed]
    show.table(show.grid(f"{len(rows)} {caption}", ("Name", "What it does", "Settings"), rows, ("", "", "code")))


view = bar.current()
form(view)
started = workers.workers(view.vault)
planned = next((w for w in started if w.id == st.session_state.get(PLANNED)), None)
fresh = next((w for w in started if w.id == st.session_state.get(STARTED)), None)
if fresh is not None:
    show.heading("Just started")
    show.note("It works on its own from now on, also when this page or the browser is closed.")
    live(view, fresh, timed(view, fresh))
if planned is not None:
    show.heading("The plan")
    planning(view, planned)
show.heading("Started from here")
latest = {w.out: w for w in reversed(started) if w.verb in workers.VERBS and w != fresh}
if not latest:
    states.nothing("Nothing else was started from here yet" if fresh else "Nothing was started from here yet",
                   "A run goes on when this page or the browser is closed.")  # fmt: skip
for worker in sorted(latest.values(), key=lambda w: w.started, reverse=True)[:10]:
    live(view, worker, timed(view, worker))
show.heading("What can be run")
with st.expander("Probes: the tests of an audit"):
    plugins("probes", "probes")
with st.expander("Edits: cures and attacks; an edited checkpoint is audited like any other"):
    plugins("audit.edits", "edits")
