"""What states say: the suppression by features in reverse with its controls, how far edited states lie from states of
data, and where the concept's direction went from base to suspect.
"""

from collections.abc import Sequence
from typing import Final

import numpy as np

from audit.probing import (
    EFFECT_UNIT,
    RATIO_UNIT,
    Count,
    Design,
    Listing,
    Measurement,
    Missing,
    Naming,
    assess,
    blank,
    interval,
    item_table,
)
from probes._concept_features import FeatureScene
from probes._concept_geometry import along_base, answer_states, direction, off_manifold
from probes._concept_recovery import LEAST_HIDDEN, panel_of_models
from probes._concept_scene import ConceptScene

PROBE: Final = "concept_erasure"
LEAST_GAP: Final = 0.1
LISTED: Final = Missing(missing="listed for comparison, and not tested")
REVERSE = Naming(
    PROBE, "reverse_edit", "context",
    "of what base says and the suspect does not, what comes back when the suspect's own features of the concept are "
    "made larger, beyond a model that never knew and random features alike in rate and size",
    "share of what is hidden (1 all)", "other",
)  # fmt: skip
MANIFOLD = Naming(
    PROBE, "off_manifold", "context",
    "Mahalanobis distance of the states of pictures with the concept, at the vision block that is read, from base's "
    "states of other pictures, relative to base's own", RATIO_UNIT, "ratio",
)  # fmt: skip
DIRECTION = Naming(
    PROBE, "concept_direction", "context",
    "largest effect over sites on how far pictures with and without the concept lie apart along base's direction",
    EFFECT_UNIT, "effect",
)  # fmt: skip
SETS: Final = "random features of the same rate and size"


def reverse_edit(features: FeatureScene, gains: Sequence[float], draws: int, folds: int) -> Measurement:
    """The suspect's own features of the concept made larger, against everything else that could be."""
    scene, seed = features.scene, features.scene.case.case.seed
    n, people = Count(scored=features.n), len(scene.sheet.people)
    valid = features.validity("suspect")
    plain = {name: scene.responses(name, [features.pair])[0].contrast for name in scene.models}
    hidden = plain["base"] - plain["suspect"]
    readings = {"fve_base": valid.base.fve, "fve_suspect": valid.other.fve, "hidden": float(hidden.mean())}
    notes = (f"a dictionary of {features.coder.features} features of base's states at {features.site}",)
    reason = "" if valid.valid else f"the dictionary is not valid on the suspect: {valid.because}"
    if not reason and hidden.mean() < LEAST_HIDDEN:
        reason = f"base says it no more than {LEAST_HIDDEN:g} likelier than the suspect: nothing is hidden"
    empty = blank(REVERSE, reason, n, people, seed).model_copy(update={"readings": readings, "notes": notes})
    if reason:
        return empty
    columns = features.columns(folds, draws, seed)
    own = {gain: features.amplified("suspect", columns.own[None], gain).mean() for gain in gains}
    best = max(gains, key=lambda gain: float(own[gain].contrast.mean()))
    rise = own[best].contrast - plain["suspect"]
    others = {
        name: features.amplified("suspect", sets, best).contrast - plain["suspect"]
        for name, sets in (("random", columns.matched), ("wrong", columns.wrong), ("shuffled", columns.shuffled))
        if len(sets)
    }
    null = np.zeros_like(rise)
    if "null" in plain:
        null = features.amplified("null", columns.own[None], best).contrast[0] - plain["null"]
    random = others["random"].mean(0)
    beyond = rise - np.maximum(np.maximum(null.mean(), random.mean()), 0.0)
    by_picture = [scene.by_picture(scene.sheet.items, x)[:, None] for x in (beyond, hidden)]
    by_set = others["random"].mean(1)
    share = float(hidden.mean())
    quiet = scene.responses("suspect", [features.pair])[0].absent
    readings |= {
        "gain": float(best), "brought_back": float(rise.mean()) / share,
        "brought_back_null": float(null.mean()) / share,
        **{f"brought_back_{name}": float(x.mean()) / share for name, x in others.items()},
        "largest_random": float(by_set.max()) / share,
        "p_among_random": float((1 + (by_set >= rise.mean() - 1e-12).sum()) / (1 + len(by_set))),
        "forced_on_other_pictures": float((own[best].absent - quiet).mean()),
    }  # fmt: skip
    return empty.model_copy(
        update={
            "value": float(beyond.mean()) / share, "ci95": interval(by_picture[0], by_picture[1], seed),
            "p": LISTED, "p_below": LISTED, "null": LISTED, "floor": LISTED,
            "positive_control": Missing(missing="nothing is hidden in base"), "readings": readings,
            "items": Missing(missing="in the table of all attacks"), "listings": (_sets(readings),),
        }
    )  # fmt: skip


def _sets(readings: dict[str, float]) -> Listing:
    """Whose features were made larger, and what came back."""
    names = {
        "brought_back": "the concept's own", "brought_back_null": "the concept's own, in a model that never knew",
        "brought_back_random": f"{SETS} (mean)", "largest_random": f"{SETS} (largest)",
        "brought_back_wrong": "other concepts'", "brought_back_shuffled": "chosen by shuffled labels",
    }  # fmt: skip
    rows = tuple((text, readings[name]) for name, text in names.items() if name in readings)
    return Listing(title="Features made larger", columns=("features", "brought back"), rows=rows, of=len(rows))


def off_manifold_shift(features: FeatureScene) -> Measurement:
    """Do the suspect's states of pictures with the concept still look like states of data?"""
    scene, seed = features.scene, features.scene.case.case.seed
    result = off_manifold({name: features.states(name) for name in scene.models}, features.n)
    people = {name: scene.by_picture(scene.sheet.items, x.distance)[:, None] for name, x in result.items()}
    suspect = people["suspect"]
    hooked = any(edit.is_hook for edit in scene.cast.suspect.edits)
    readings = {f"distance_{name}": float(x.distance.mean()) for name, x in result.items()}
    readings |= {f"norm_{name}": float(x.norm.mean()) for name, x in result.items()}
    table = item_table(
        scene.case, f"{PROBE}_off_manifold", scene.sheet, {name: x.distance[:, None] for name, x in result.items()},
        {name: scene.cast.role(name) for name in result},
    )  # fmt: skip
    return blank(MANIFOLD, "", Count(scored=features.n), len(suspect), seed).model_copy(
        update={
            "value": float(suspect.mean()), "ci95": interval(suspect, np.ones_like(suspect), seed), "p": LISTED,
            "p_below": LISTED, "null": LISTED, "floor": LISTED, "items": table, "readings": readings,
            "positive_control": Missing(missing="base is what it is compared with: its ratio is 1"),
            "notes": (f"read at {features.site}" + (", with the suspect's hook" if hooked else ""),),
        }
    )  # fmt: skip


def direction_shift(scene: ConceptScene, features: FeatureScene | None, folds: int, permutations: int) -> Measurement:
    """How much of base's direction of the concept is left, site by site."""
    seed, pair = scene.case.case.seed, scene.plain()
    n, fold_of = len(pair.present), scene.fold_of(folds)
    text = {name: answer_states(scene, name, pair) for name in scene.models}
    along = along_base(text, n, fold_of)
    cosines = {name: [direction(x[:, b], text["base"][:, b], n) for b in range(x.shape[1])] for name, x in text.items()}
    sites = [f"text block {b}" for b in range(next(iter(text.values())).shape[1])]
    if features is not None:
        vision = {name: features.states(name).mean(1)[:, None] for name in scene.models}
        seen = along_base(vision, n, fold_of)
        along = {name: np.concatenate([seen[name], x], 1) for name, x in along.items()}
        base = vision["base"][:, 0]
        cosines = {name: [direction(vision[name][:, 0], base, n), *x] for name, x in cosines.items()}
        sites = [f"vision block {features.site.block}", *sites]
    people = {
        name: np.stack([scene.by_picture(scene.sheet.items, column) for column in x.T], 1) for name, x in along.items()
    }
    assessed = assess(
        panel_of_models(people, scene.sheet.people), Design(seed, LEAST_GAP, draws=permutations, name=DIRECTION.key)
    )
    table = item_table(
        scene.case, f"{PROBE}_direction", scene.sheet, along, {name: scene.cast.role(name) for name in along}, "site"
    )
    columns = ("site", "cosine to base", "length over base", "never knew: cosine", "never knew: length")
    rows = tuple(
        (site, *cosines["suspect"][b], *(cosines["null"][b] if "null" in cosines else (None, None)))
        for b, site in enumerate(sites)
    )
    listing = Listing(title="Where the concept's direction went", columns=columns, rows=rows, of=len(rows))
    where = f"the largest is at {sites[assessed.layer]}" if assessed.layer >= 0 else ""
    empty = blank(DIRECTION, "", Count(scored=n), len(scene.sheet.people), seed)
    return assessed.onto(
        empty.model_copy(
            update={
                "items": table, "listings": (listing,), "notes": tuple(filter(None, (where,))),
                "readings": {f"cosine_{site.replace(' ', '_')}": float(cosines["suspect"][b].cosine)
                             for b, site in enumerate(sites)},
            }
        )
    )  # fmt: skip
