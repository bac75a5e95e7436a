"""What is known and seen of dictionaries, as tables for people and as JSON for programs."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.table import Table

from audit.cli.answer import JsonValue
from audit.wording import number

if TYPE_CHECKING:
    from saes import DictionaryView, FeatureView, MatchView, StoredDictionary, TopRow

SHOWN = 10
_ITEMS = 3
_SAME = 0.7
"""Features whose decoder rows are more alike than this are counted as the same."""


# ---- JSON -------------------------------------------------------------------------------------------------------
def document(stored: "StoredDictionary", match: "MatchView | None" = None) -> dict[str, JsonValue]:
    """What is known of a dictionary without a model."""
    coder, record = stored.coder, stored.record
    content: dict[str, JsonValue] = {
        "folder": str(stored.folder), "activation": coder.activation, "k": coder.k, "features": coder.features,
        "width": coder.width, "record": None if record is None else record.model_dump(mode="json"),
    }  # fmt: skip
    if stored.firing_rates is not None:
        order = stored.firing_rates.argsort(descending=True, stable=True)[:SHOWN].tolist()
        rates = stored.firing_rates.tolist()
        content["top_features"] = [{"feature": n, "firing_rate": rates[n]} for n in order]
    if match is not None:
        content["match"] = match.model_dump(mode="json")
    return content


def viewed(
    stored: "StoredDictionary", seen: "DictionaryView", match: "MatchView | None", count: int
) -> dict[str, JsonValue]:
    """What is seen of it on the models of a case: ``count`` features that fire most often, and those that changed."""
    features: list[JsonValue] = [_feature(seen, feature) for feature in seen.features]
    models: dict[str, JsonValue] = {model.name: model.validity.model_dump(mode="json") for model in seen.models}
    return {
        **document(stored, match), "trained_on_this_base": seen.own_base, "validity": models["suspect"],
        "validities": models, "top_features": features[:count], "changed_features": features[count:],
    }  # fmt: skip


def _feature(seen: "DictionaryView", feature: "FeatureView") -> dict[str, JsonValue]:
    names = [model.name for model in seen.models]
    tops: dict[str, JsonValue] = {
        name: [top.model_dump(mode="json") for top in rows] for name, rows in zip(names, feature.top, strict=True)
    }
    rates: dict[str, JsonValue] = {name: seen.rate(n, feature.feature, False) for n, name in enumerate(names)}
    forget: dict[str, JsonValue] = {name: seen.rate(n, feature.feature, True) for n, name in enumerate(names)}
    return {
        "feature": feature.feature, "firing_rate": rates, "firing_rate_forget": forget, "top_texts": tops["base"],
        "top_items": tops, "change": seen.change(feature),
    }  # fmt: skip


# ---- tables -----------------------------------------------------------------------------------------------------
def overview(stored: "Sequence[StoredDictionary]") -> Table:
    """Dictionaries as they were measured when they were trained."""
    table = Table(title="dictionaries, on items that training did not see")
    for heading in ("dictionary", "architecture", "features", "FVE", "L0", "dead", "commonest features (firing rate)"):
        table.add_column(heading)
    for each in stored:
        record, measured = each.record, each.record.held_out if each.record is not None else None
        cells = ("?",) * 3 if measured is None else (number(measured.fve), number(measured.l0), str(measured.dead))
        architecture = each.coder.activation if record is None else record.settings.architecture
        table.add_row(each.folder.name, architecture, str(each.coder.features), *cells, _commonest(each))
    return table


def _commonest(stored: "StoredDictionary") -> str:
    if stored.firing_rates is None:
        return "not measured"
    order = stored.firing_rates.argsort(descending=True, stable=True)[: SHOWN // 2].tolist()
    return ", ".join(f"{n} ({number(float(stored.firing_rates[n]))})" for n in order)


def view(seen: "DictionaryView", count: int) -> tuple[Table | str, ...]:
    """How well it fits each model, and its features side by side: the commonest, and those that changed most."""
    lines = [
        f"{seen.name} in {model.name}, {f.rows} rows: FVE {number(f.fve)}, L0 {number(f.l0)}, {f.dead} of {f.features} "
        "dead"
        for model in seen.models
        for f in (model.fidelity,)
    ]
    lines += [
        f"{'valid' if model.validity.valid else 'NOT VALID'} on the {model.name}: {model.validity.because}"
        for model in seen.models[1:]
    ]
    lines += [] if seen.own_base else ["it was trained on other weights than those of this case's base"]
    commonest = seen.features[:count]
    tables = [_features(f"{seen.name}: features by firing rate in base", seen, commonest)]
    if seen.features[count:]:
        title = f"{seen.name}: features whose rate at forget items changed most"
        tables.append(_features(title, seen, seen.features[count:]))
    return (*lines, *tables)


def _features(title: str, seen: "DictionaryView", features: "Sequence[FeatureView]") -> Table:
    table = Table(title=title)
    forget = bool(seen.models[0].forget_rates)
    table.add_column("feature")
    for model in seen.models:
        table.add_column(f"{model.name}: rate{' (forget)' if forget else ''}, most active at")
    table.add_column("from base to the suspect")
    for feature in features:
        cells: list[str] = []
        for n, rows in enumerate(feature.top):
            rates = [number(seen.rate(n, feature.feature, False))]
            rates += [f"({number(seen.rate(n, feature.feature, True))})"] if forget else []
            cells.append("\n".join([" ".join(rates), *map(_quoted, rows[:_ITEMS])]))
        table.add_row(str(feature.feature), *cells, seen.change(feature))
    return table


def _quoted(top: "TopRow") -> str:
    return f"{number(top.code)}  {top.text}" + (f" ({top.spot})" if top.spot else "")


def matched(stored: "StoredDictionary", match: "MatchView") -> tuple[Table | str, ...]:
    """Which feature is which of the other dictionary, those that fire most often first."""
    rates = None if stored.firing_rates is None else stored.firing_rates.tolist()
    same = sum(cosine >= _SAME for cosine in match.cosine)
    lead = (
        f"{stored.folder.name} and {match.other}: {same} of {len(match.cosine)} pairs of features with a cosine of at "
        f"least {_SAME:g}; largest cosine of a feature {number(match.mean_max_cosine)} on average"
    )
    table = Table(title=f"{stored.folder.name}: its commonest features in {match.other}")
    for heading in ("feature", "firing rate", f"in {match.other}", "cosine"):
        table.add_column(heading)
    pairs = zip(match.first, match.second, match.cosine, strict=True)
    for first, second, cosine in sorted(pairs, key=lambda pair: -(rates or [0.0])[pair[0] if rates else 0])[:SHOWN]:
        rate = "not measured" if rates is None else number(rates[first])
        table.add_row(str(first), rate, str(second), number(cosine))
    return lead, table
