"""How is a model made to forget, to pretend it, or to remember?"""

import ast
import shlex
from pathlib import Path

import streamlit as st

from audit.edits import ListedEdit, listed_edits
from audit.plugins import Setting
from audit.render import listing_grid
from audit.wording import NAME, number, visible
from dashboards import bar, edits, show, starting, states, workers
from dashboards.vault import shown
from dashboards.workers import Heard, Worker

ORDER = 85
WHOLE_FOLDER = True
ROLES = ("base", "suspect", "reference", "ancestor")
PARTS = ("all", "calibration", "audit")


def form(view: bar.View) -> None:
    """Which edit of which case, with which settings, into which folder; then start it."""
    case = starting.case_box(view, "of")
    by_name = {edit.name: edit for edit in listed_edits()}
    name = st.selectbox("Edit", list(by_name), key="edit", bind="query-params")
    edit = by_name.get(name or "") or next(iter(by_name.values()))
    about(edit)
    stated, rows = settings(edit), which_rows(edit)
    suggested = f"{edits.PLACE}/{Path(case).resolve().parent.name or 'case'}-{edit.name}" if case else ""
    out = st.text_input("Folder of the edited model, below the folder of runs", suggested, key=f"out-{edit.name}")
    flags = starting.setting_flags()
    if not case or not starting.is_below(out):
        show.note("Name a case file, and a folder below the folder of runs. A new case file, to be filled in:")
        show.command("residua init case.toml")
        return
    arguments = [case, "--edit", edit.name, *stated, *rows, "-o", str(view.vault.root / out), *flags]
    show.sub("As a command")
    show.command(shlex.join(["residua", edits.VERB, *arguments]))
    if st.button("Start", key="start", type="primary"):
        workers.start(view.vault, edits.VERB, arguments, out)
        st.rerun()


def about(edit: ListedEdit) -> None:
    """What an edit does, needs, costs and fits."""
    show.facts([("Needs", edit.needs_in_words), ("Costs", edit.cost), ("Fits", edit.fits),
                ("As plain weights", "yes, with --merge" if edit.folds else f"no: it acts by a hook ({edit.plays})")]
               )  # fmt: skip
    show.code(edit.help)


def which_rows(edit: ListedEdit) -> list[str]:
    """Whose model is edited, which people it sees, and how the result is written."""
    first, second, third, fourth = st.columns(4)
    on = first.selectbox("Whose model", ROLES, key="on")
    part = second.selectbox("Forget groups", PARTS, key="part", help="all of them, or one half by the split's seed")
    general = third.checkbox("Keep half of the general texts", key="keep-general")
    merge = fourth.checkbox("As plain weights", key="merge", disabled=not edit.folds)
    return [
        *(["--on", on] if on != ROLES[0] else []), *(["--part", part] if part != PARTS[0] else []),
        *(["--keep-general"] if general else []), *(["--merge"] if merge and edit.folds else []),
    ]  # fmt: skip


# ---- settings ----------------------------------------------------------------------------------------------------
def settings(edit: ListedEdit) -> list[str]:
    """The settings that are not at their defaults, as flags."""
    flags: list[str] = []
    places = st.columns(4)
    for n, setting in enumerate(edit.settings):
        default = _plain(setting.default)
        with places[n % len(places)]:
            value = _asked(edit, setting, default)
        if value != default:
            flags += ["--set", f"{setting.name}={value}"]
    return flags


def _asked(edit: ListedEdit, setting: Setting, default: str) -> str:
    key = f"{edit.name}-{setting.name}"
    if offered := choices(setting.annotation):
        return str(st.selectbox(setting.name, offered, index=offered.index(default), key=key))
    return str(st.text_input(setting.name, default, key=key)).strip()


def choices(annotation: str) -> list[str]:
    """The values of a setting that has a few; none where any of a kind will do."""
    if annotation == "bool":
        return ["False", "True"]
    tree = ast.parse(annotation, mode="eval").body
    if isinstance(tree, ast.Subscript) and ast.unparse(tree.value) == "Literal":
        values = ast.literal_eval(tree.slice)
        return [str(value) for value in (values if isinstance(values, tuple) else (values,))]
    return []


def _plain(default: str | None) -> str:
    """A default as it would be typed."""
    try:
        return str(ast.literal_eval(default or "''"))
    except ValueError:
        return default or ""


# ---- what was started ----------------------------------------------------------------------------------------------
@st.fragment(run_every=1)
def live(view: bar.View, worker: Worker) -> None:
    """One edit: how far it is, and what it left."""
    outcome = workers.heard(view.vault, worker)
    with st.container(border=True):
        words = {"running": "is running", "finished": "is finished", "failed": "failed", "cancelled": "was stopped"}
        show.sub(f"{shown(worker.out)}: {words[outcome.ending]}")
        if outcome.ending == "running":
            seen = edits.steps(outcome)
            st.progress(seen.share, text=f"{seen.done} of {seen.total} steps" if seen.total else "Opening the models…")
            show.note(visible(seen.line, NAME))
            st.button("Stop", key=f"stop-{worker.id}", on_click=workers.stop, args=(worker,),
                      help="Nothing half-written is left; it starts again from the beginning.")  # fmt: skip
        elif outcome.ending == "finished":
            finished(worker, outcome)
        else:
            again(view, worker, outcome)


def again(view: bar.View, worker: Worker, outcome: Heard) -> None:
    """Why it ended early, and a way to begin again."""
    if outcome.ending == "failed":
        states.panel("It failed", states.line(workers.trouble(outcome)), "bad", role="alert")
    if st.button("Start again", key=f"again-{worker.id}"):
        workers.start(view.vault, worker.verb, worker.arguments, worker.out)
        st.rerun(scope="app")


def finished(worker: Worker, outcome: Heard) -> None:
    """What changed, what it cost, and the audit of it."""
    left = edits.left_by(outcome)
    if left is None:
        states.nothing("Its answer cannot be read", "It is of another version; the folder is as it was written.")
        return
    summary = left.summary
    change = "no weight: a hook acts on every run" if summary.change is None else (
        f"{summary.tensors} of {summary.of_tensors} tensors, by {number(summary.change)} of their norm"
    )  # fmt: skip
    if summary.of_blocks is not None:
        change += f", in {100 * summary.of_blocks:.3g} % of the weights of the blocks"
    show.facts([
        ("Edit", f"{visible(summary.edit, NAME)} of {visible(summary.case, NAME)}'s {summary.role}"),
        ("Rows", ", ".join(f"{name} {n}" for name, n in summary.rows.items())), ("Changed", change),
        ("Cost", f"{summary.cpu_s:.1f} CPU-seconds, {summary.steps} training steps"),
        ("Folder", shown(left.folder)),
    ])  # fmt: skip
    show.table(listing_grid(summary.changed))
    show.sub("Audit it")
    show.command(left.following)
    if st.button("Audit it from here", key=f"audit-{worker.id}", on_click=bar.go, args=("run",),
                 kwargs={"case": left.case}):  # fmt: skip
        st.rerun(scope="app")


view = bar.current()
form(view)
show.heading("Started from here")
mine = edits.edits_of(workers.workers(view.vault))
if not mine:
    states.nothing("Nothing was edited from here yet", "An edit goes on when this page or the browser is closed.")
for worker in mine[:10]:
    live(view, worker)
