"""What was audited, and what came out?"""

import streamlit as st

from audit.render import VERDICT_MEANING, VERDICT_SYMBOL
from dashboards import audit_table, bar, show, states
from dashboards.audit_table import ORDERS, Audited

ORDER = 0
SECTION = "Audits"
WHOLE_FOLDER = True


def counts(rows: tuple[Audited, ...]) -> None:
    """How many audits say each word."""
    found = audit_table.words(rows)
    items = "".join(
        f'<li><b>{n}</b><span aria-hidden="true">{VERDICT_SYMBOL.get(word, "–")}</span> {show.explained(word)}</li>'
        for word, n in found.items()
    )
    show.markup(f'<ul class="r-counts r-brief" aria-label="Audits by verdict">{items}</ul>')


def common(rows: tuple[Audited, ...]) -> None:
    """What holds for all rows at once: what was not tested, what may be called erased, how one is repeated."""
    lines = [each.row for each in rows if each.row is not None]
    if not lines:
        return
    against = {line.against for line in lines}
    untested = [[x.strip() for x in line.untested.split(",")] for line in lines]
    everywhere = [x for x in untested[0] if all(x in others for others in untested)]
    demo = sum(each.run.report is not None and each.run.report.demo for each in rows)
    facts = [
        ("Compared with", against.pop() if len(against) == 1 else "not the same models; each row says with which"),
        ("Not tested in any of them", ", ".join(everywhere) or "nothing in common; each row says its own"),
        ("May one be called erased?", "No. No verdict here says so: the strongest is that no trace was found."),
        ("To repeat the first", lines[0].repeat),
        *([("Demo data", f"{demo} of {len(rows)}: made-up models and people")] if demo else []),
    ]
    show.facts(facts)
    show.note("Each row has this of its own, folded under its verdict. A name opens the whole verdict.")


def meanings() -> None:
    """What the six words say."""
    show.heading("The words")
    show.facts([(f"{VERDICT_SYMBOL[word]} {word}", said) for word, said in VERDICT_MEANING.items()])
    show.note(
        "Outputs: what the model says. Internals: what its states hold, or what an attack brings back. Both are shares "
        "of base: 0 is a model that never knew, 1 is base. INVALID rows are grey: their silence means nothing."
    )


view = bar.current()
rows = audit_table.audited(view.peers())
if not rows:
    states.empty(view)
    st.stop()
counts(rows)
left, middle, right = st.columns([3, 3, 2])
only = left.multiselect("Verdicts", list(audit_table.words(rows)), key="only", bind="query-params",
                        placeholder="all verdicts")  # fmt: skip
search = middle.text_input("Search names and reasons", key="search", bind="query-params")
order = right.selectbox("Order", ORDERS, key="order-audits", bind="query-params")
kept = audit_table.chosen(rows, only, search, order or ORDERS[0])
if not kept:
    states.nothing("No audit of this choice", "Choose other verdicts, or search for less.")
    st.stop()
heads = [show.explained(*head) for head in audit_table.HEADS]
show.template("audits.html.j2", lines=audit_table.lines(kept[: audit_table.MOST]), heads=heads)
if len(kept) > audit_table.MOST:
    show.note(f"The first {audit_table.MOST} of {len(kept)}: choose verdicts or search to see others.")
show.heading("Of these audits")
common(kept)
meanings()
show.note(f"The same in a terminal: residua summary {view.vault.root}")
