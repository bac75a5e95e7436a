"""What does a dictionary see in each model of a case? How well it fits, how often each feature fires, and at what."""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from audit.bench import Bench
from audit.schema import AuditError, Checkpoint, Site
from saes.bench_activations import CaseTexts, ItemActivations
from saes.dictionary_folder import StoredDictionary
from saes.feature_matching import match_features
from saes.fidelity import measure, validity
from saes.most_active import TopItem, top_items
from saes.patch_activations import activations_of
from saes.sparse_coder import SparseCoder
from saes.view_records import DictionaryView, FeatureView, MatchView, ModelView, TopRow


class Shown(NamedTuple):
    """How much is shown: features (commonest, and again as many that changed most), items a feature; and how an item
    is quoted: in clear or as its mark, and whether it is masked."""

    features: int
    items: int
    quote: Callable[[TopItem], tuple[str, bool]]


class CaseModels(NamedTuple):
    """The models of a case by what they are called, base first and the suspect second, and the items to read."""

    case: str
    bench: Bench
    texts: CaseTexts
    by_name: Mapping[str, Checkpoint]


def view_dictionary(stored: StoredDictionary, models: CaseModels, shown: Shown) -> DictionaryView:
    """A dictionary on every model of a case, at the site and the places that it was trained on.

    AuditError (code 2) for a dictionary without a record of ours that says at which.
    """
    record, coder = stored.record, stored.coder
    if record is None or record.site is None:
        problem = f"{stored.folder}: no record of ours says at which site it was trained"
        raise AuditError(problem, "leave out the case, or train it here")
    sources = [
        activations_of(models.bench, model, models.texts, [record.site], record.patches)
        for model in models.by_name.values()
    ]
    measured = [measure(coder, source, str(record.site)) for source in sources]
    forget = [_forget_rates(coder, source) for source in sources]
    seen = [
        ModelView(
            name=name, fidelity=each.fidelity, validity=validity(measured[0].fidelity, each.fidelity),
            rates=tuple(each.firing_rates.tolist()), forget_rates=tuple(rates.tolist()),
        )
        for name, each, rates in zip(models.by_name, measured, forget, strict=True)
    ]  # fmt: skip
    # what is to be forgotten is where a change matters
    compared = forget if len(forget[0]) else [each.firing_rates for each in measured]
    chosen = _chosen(measured[0].firing_rates, compared[1] - compared[0], shown.features)
    tops = [top_items(coder, source, str(record.site), chosen, shown.items) for source in sources]
    return DictionaryView(
        name=stored.folder.name, case=models.case, site=_in_words(record.site), patches=record.patches,
        activation=record.settings.architecture, k=record.settings.k, width=coder.features,
        own_base=record.checkpoint == next(iter(models.by_name.values())).key, models=tuple(seen),
        features=tuple(
            FeatureView(feature=n, top=tuple(tuple(_row(each, shown) for each in top[n]) for top in tops))
            for n in chosen
        ),
    )  # fmt: skip


def _in_words(site: Site) -> str:
    tower = "" if site.tower is None else f" of the {site.tower} tower"
    return site.part if site.block is None else f"{site.part}, block {site.block}{tower}"


def _chosen(common: Float[Tensor, " feature"], change: Float[Tensor, " feature"], count: int) -> list[int]:
    """The features that fire most often in base, then those whose rate changed most and are not among these."""
    by_rate = common.argsort(descending=True, stable=True)[:count].tolist()
    by_change = change.abs().argsort(descending=True, stable=True)[:count].tolist()
    return list(dict.fromkeys([*by_rate, *by_change]))


@torch.no_grad()
def _forget_rates(coder: SparseCoder, source: ItemActivations) -> Float[Tensor, " feature"]:
    """How often each feature is active at rows of items to be forgotten; empty where there are none."""
    forgotten = torch.tensor([cohort == "forget" for cohort in source.texts.cohorts])
    fired, rows = torch.zeros(coder.features, dtype=torch.float64), 0
    (name,) = source.names
    for n in range(len(source.sizes)):
        own = forgotten[source.owners(n)]
        if bool(own.any()):
            fired += (coder.encode(source.chunk(n)[name][own]) > 0).sum(0)
            rows += int(own.sum())
    return (fired / rows).float() if rows else torch.zeros(0)


def _row(top: TopItem, shown: Shown) -> TopRow:
    text, masked = shown.quote(top)
    return TopRow(text=text, masked=masked, cohort=top.cohort, code=top.code, share=top.share, spot=top.spot)


def match_dictionaries(first: StoredDictionary, second: StoredDictionary) -> MatchView:
    """Which feature of one dictionary is which of another, such as of base's and the suspect's.

    AuditError (code 2) for other widths, or rates that were never measured.
    """
    for stored in (first, second):
        if stored.firing_rates is None:
            raise AuditError(f"{stored.folder}: no firing rates were measured", "train it here")
    assert first.firing_rates is not None and second.firing_rates is not None
    match = match_features(first.coder, second.coder, first.firing_rates, second.firing_rates)
    return MatchView(
        other=second.folder.name, first=tuple(match.first.tolist()), second=tuple(match.second.tolist()),
        cosine=tuple(match.cosine.tolist()), mean_max_cosine=match.mean_max_cosine,
    )  # fmt: skip
