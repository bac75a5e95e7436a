"""What do the features of a dictionary fire at, and what changed?"""

import streamlit as st
from markupsafe import escape

from audit.wording import NAME, number, visible
from dashboards import bar, dictionaries, show, states
from dashboards.dictionaries import Folder
from dashboards.items import as_shown
from dashboards.vault import Vault, shown
from saes import DictionaryView, FeatureView, TopRow

ORDER = 65
BY_RATE, BY_CHANGE = "firing rate in base", "change from base to the suspect"
FORGET, ALL = "to be forgotten", "all"


@st.cache_resource(show_spinner="Reading the dictionary…", max_entries=8)
def read(vault: Vault, folder: Folder) -> DictionaryView:
    """A dictionary's file, read once for as long as it stays as it is."""
    return dictionaries.read(vault, folder.name)


def fit(seen: DictionaryView) -> None:
    """How well the dictionary describes each model, and whether it may be used there."""
    valid = seen.models[1].validity
    show.lead(f"{'Valid' if valid.valid else 'Not valid'} on the suspect: {valid.because}.")
    if not seen.own_base:
        show.text("It was trained on other weights than those of this case's base.")
    places = "" if seen.patches is None else f"{seen.patches.count} places of every image at the most"
    active = f"{seen.activation}, {seen.width} features" + (f", {seen.k} active a row" if seen.k is not None else "")
    show.facts([("Case", visible(seen.case, NAME)), ("Site", visible(seen.site, NAME)),
                ("Dictionary", visible(active, NAME)), *([("Rows", places)] if places else [])])  # fmt: skip
    rows = [
        [visible(model.name, NAME), number(f.fve), number(f.l0), f"{f.dead} of {f.features}", str(f.rows),
         "yes" if model.validity.valid else "no", visible(model.validity.because, NAME)]
        for model in seen.models for f in (model.fidelity,)
    ]  # fmt: skip
    columns = ("model", "variance explained", "active a row", "dead features", "rows", "valid", "because")
    show.table(show.grid("How well it describes each model", columns, rows))


def moved(seen: DictionaryView, feature: FeatureView, forget: bool) -> float:
    """By how much a feature's rate differs between base and the suspect."""
    return abs(seen.rate(1, feature.feature, forget) - seen.rate(0, feature.feature, forget))


def ordered(seen: DictionaryView, by: str, forget: bool) -> list[FeatureView]:
    """The features by firing rate in base, or by how much it changed."""
    if by == BY_CHANGE:
        return sorted(seen.features, key=lambda feature: -moved(seen, feature, forget))
    return sorted(seen.features, key=lambda feature: -seen.rate(0, feature.feature, forget))


def quoted(row: TopRow, reveal: bool) -> str:
    """An item as the page may show it: one to be forgotten by its mark, or masked until it is asked for."""
    clear = row.masked or row.cohort != "forget"
    return visible(row.text, NAME) if clear else as_shown(row.text, reveal)


def side_by_side(seen: DictionaryView, feature: FeatureView, reveal: bool) -> None:
    """The items that a feature is most active at, a column a model; what is not among base's is marked as new."""
    known = {(row.text, row.cohort) for row in feature.top[0]}
    columns: list[str] = []
    for n, (model, rows) in enumerate(zip(seen.models, feature.top, strict=True)):
        lines = [
            f"<li>{escape(quoted(row, reveal))}{f' ({escape(visible(row.spot, NAME))})' if row.spot else ''}"
            f"<br>{row.cohort}, code {number(row.code)}{f', {number(row.share)} of its rows' if row.spot else ''}"
            f"{'; <strong>not among base&#39;s</strong>' if n and (row.text, row.cohort) not in known else ''}</li>"
            for row in rows
        ]
        listed = f"<ol>{''.join(lines)}</ol>" if lines else "<p>It never fires.</p>"
        own = f"{number(seen.rate(n, feature.feature, False))} of all rows"
        if model.forget_rates:
            own += f", {number(seen.rate(n, feature.feature, True))} of those to be forgotten"
        columns.append(f"<div><h3>{escape(visible(model.name, NAME))}</h3><p>Fires at {own}.</p>{listed}</div>")
    show.markup(f'<div class="r-columns">{"".join(columns)}</div>')


view = bar.current()
listed = {folder.name: folder for folder in dictionaries.folders(view.vault)}
if not listed:
    states.nothing(
        "No dictionary", "None was trained here, or nothing was looked at with it yet. To make one and look:"
    )
    show.command("residua sae train case.toml --site 1 --width 512 --k 8 -o runs/saes")
    show.command("residua sae show runs/saes case.toml -o runs/saes")
    st.stop()
name = st.selectbox("Dictionary", list(listed), key="dictionary", bind="query-params", format_func=shown)
seen = read(view.vault, listed.get(name or "") or next(iter(listed.values())))
fit(seen)
show.heading("Features")
left, right = st.columns(2)
by = left.selectbox("Sort by", [BY_RATE, BY_CHANGE], key="by", bind="query-params") or BY_RATE
choices = [FORGET, ALL] if seen.models[0].forget_rates else [ALL]
forget = right.selectbox("Rows", choices, key="rows", bind="query-params") == FORGET
features = ordered(seen, by, forget)
names = [visible(model.name, NAME) for model in seen.models]
rows = [
    [str(each.feature), *(number(seen.rate(n, each.feature, forget)) for n in range(len(names))), seen.change(each)]
    for each in features
]  # fmt: skip
caption = f"Firing rates on {'rows to be forgotten' if forget else 'all rows'}"
show.table(show.grid(caption, ("feature", *names, "from base to the suspect"), rows))
show.note(
    "The features that fire most often in base, and those whose rate changed most from base to the suspect. A change "
    "describes this dictionary on these rows; it is no test, and no verdict rests on it."
)
picked = st.selectbox("Feature", [str(each.feature) for each in features], key="feature", bind="query-params")
feature = next((each for each in features if str(each.feature) == picked), features[0])
reveal = False
if any(row.cohort == "forget" and not row.masked for each in seen.features for rows in each.top for row in rows):
    reveal = st.toggle("Reveal the items", key="reveal")
    if reveal:
        states.panel("The items are shown", "<p>This is the data that should be forgotten. Do not let it out of the "
                     "house.</p>", "bad", role="alert")  # fmt: skip
show.heading(f"Feature {feature.feature}")
show.text(f"From base to the suspect: {seen.change(feature)}.")
side_by_side(seen, feature, reveal)
