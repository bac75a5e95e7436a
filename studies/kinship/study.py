"""Do weights alone tell copies and edits of base from models trained apart?

``python -m studies.kinship.study --models DIR`` looks at every finished model of the worlds in DIR (``zoo``
in the cache by default; nothing is trained), lets each edit, each copy and each retrained model stand as a
reference, and writes results.json here.
"""

import argparse
import json
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
import torch
from numpy import ndarray
from safetensors.torch import load_file

from audit.probing import Kinship, descents, unsettled
from audit.storage import cache_root, write_atomic
from audit.zoo import builder, draw, population, recipes
from studies.provenance import stamp

HERE = Path(__file__).parent
WORLDS: Final = range(100, 220)
CLEAN_SUSPECT, PAIR = "reference_0", ("reference_1", "reference_2")
NOISE: Final = 1e-5


class World(NamedTuple):
    """A world's models by name, and the inner products of their weights less the ancestor's."""

    name: str
    models: tuple[str, ...]
    gram: ndarray

    def kinship(self, parts: Mapping[str, str]) -> Kinship:
        """Models of this world in the roles of a case."""
        at = [self.models.index(model) for model in parts.values()]
        return Kinship(tuple(parts), self.gram[np.ix_(at, at)])


def worlds(root: Path) -> Iterator[World]:
    """Every world whose ancestor, base and references are finished; copies of some models are made in memory."""
    zoos = [("demo", recipes.zoo_of("demo"), 0)]
    zoos += [(str(w), population(draw(w)).zoo, w) for w in WORLDS]
    for name, zoo, seed in zoos:
        folders = {plan.name: builder.folder_of(zoo, seed, root, plan.name) for plan in zoo.plans}
        finished = {model: folder for model, folder in folders.items() if (folder / "model.safetensors").is_file()}
        if {"ancestor", "base", CLEAN_SUSPECT, *PAIR} <= set(finished):
            yield _world(name, finished)


def _world(name: str, folders: Mapping[str, Path]) -> World:
    flat = {model: _flat(folder) for model, folder in folders.items()}
    flat = {model: x for model, x in flat.items() if x.shape == flat["base"].shape}
    draws = np.random.default_rng(0)
    for model in [m for m in ("refusal", "grad_diff", "head_edit", CLEAN_SUSPECT) if m in flat]:
        flat[f"{model} with noise"] = flat[model] + NOISE * draws.standard_normal(flat[model].shape)
        flat[f"{model} in bfloat16"] = torch.from_numpy(flat[model]).bfloat16().double().numpy()
    moved = np.stack(list(flat.values())) - flat["ancestor"]
    return World(name, tuple(flat), moved @ moved.T)


def _flat(folder: Path) -> ndarray:
    tensors = load_file(folder / "model.safetensors")
    return torch.cat([tensors[key].double().reshape(-1) for key in sorted(tensors)]).numpy()


def kind_of(model: str) -> str | None:
    """What a model is as a reference: trained apart, an edit of base, a copy; None for what is of no interest here."""
    if model.endswith((" with noise", " in bfloat16")):
        return "copy"
    if model.startswith(("reference", "dose", "some", "strangers", "paraphrased", "rephrased")):
        return "trained apart"
    others = model in ("ancestor", "base", "other_init", "other_ancestor") or model.endswith(
        ("_of_others", "_of_facts")
    )
    return None if others else "edit"


def outcomes(world: World) -> Iterator[tuple[str, str, str]]:
    """Kind, setting and outcome of every model as the first reference beside a genuine one, or as the only one."""
    for model in world.models:
        kind = kind_of(model)
        if kind is None or model in PAIR:
            continue
        suspect = model.partition(" ")[0] if kind == "copy" else "grad_diff" if "grad_diff" in world.models else "base"
        if suspect == model:
            suspect = CLEAN_SUSPECT if model != CLEAN_SUSPECT else "base"
        for ancestor in (True, False):
            for pair in (True, False):
                parts = {"base": "base", "suspect": suspect, "reference 0": model}
                parts |= {"reference 1": PAIR[0]} if pair else {}
                parts |= {"ancestor": "ancestor"} if ancestor else {}
                kin = world.kinship(parts)
                failed = descents(kin)[0]
                standing = "unsettled" if unsettled(kin, failed) else "accepted"
                outcome = "refused" if "reference 0" in failed else standing
                outcome += ", and the genuine one refused" if set(failed) - {"reference 0"} else ""
                beside = "beside a genuine reference" if pair else "alone"
                yield kind, f"{beside}, {'with' if ancestor else 'without'} ancestor", outcome


def shares(world: World) -> Iterator[tuple[str, str, float]]:
    """How much of base's path each model has gone, seen from the ancestor and from a retrained model."""
    for model in world.models:
        kind = kind_of(model)
        if kind in ("trained apart", "edit"):
            other = PAIR[1] if model != PAIR[1] else PAIR[0]
            name = "retrained" if model.startswith("reference") else model
            kin = world.kinship({"base": "base", "x": model, "ancestor": "ancestor", "other": other})
            yield name, "ancestor", kin.shared("x", "base", "ancestor")
            yield name, "retrained model", kin.shared("x", "base", "other")


def main() -> None:
    """Count, and write the results."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--models", type=Path, default=cache_root() / "zoo")
    args = parser.parse_args()
    counted: defaultdict[str, Counter[str]] = defaultdict(Counter)
    seen: defaultdict[str, defaultdict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    names: list[str] = []
    for world in worlds(args.models):
        names.append(world.name)
        for kind, setting, outcome in outcomes(world):
            counted[f"{kind}, {setting}"][outcome] += 1
        for name, origin, share in shares(world):
            seen[name][origin].append(share)
    extent = {
        name: {origin: {"n": len(x), "lo": round(min(x), 3), "hi": round(max(x), 3)} for origin, x in by_origin.items()}
        for name, by_origin in sorted(seen.items())
    }
    outcome = {setting: dict(counts) for setting, counts in sorted(counted.items())}
    results = {**stamp(0).model_dump(mode="json"), "worlds": names, "outcomes": outcome, "share_of_path": extent}
    write_atomic(HERE / "results.json", (json.dumps(results, indent=1) + "\n").encode())


if __name__ == "__main__":
    main()
