"""What concept suppression by a dictionary needs of a model and its rows: the site, its states, and a dictionary."""

import shutil
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from audit.bench import Bench, GatedClamp, site_of
from audit.case import Rows
from audit.edits._edit import EditData
from audit.schema import AuditError, Checkpoint, Read, Site, TowerName
from audit.wrappers import Tower, Wrapper
from saes import (
    PatchSample,
    StoredDictionary,
    TensorActivations,
    TrainingSettings,
    read_dictionary,
    train,
    with_threshold,
    write_dictionary,
)

_BYTES_AT_ONCE = 1 << 28
_HELD_OUT, _LEAST_HELD_OUT = 16, 32
_PIXELS = "pixel_values"
_PUSH = 1e3


class Place(NamedTuple):
    """Where states are edited (a site that names its tower), how many first positions of every row are left as they
    are, whether positions are those of tokens, and the tower that the head reads."""

    site: Site
    leading: int
    by_token: bool
    head: TowerName


def place_of(edit: str, wrapper: Wrapper, rows: Rows, wanted: str) -> Place:
    """The site that is edited. AuditError (code 2) by the edit's name for what is no site of this model.

    Without a wish: the vision block that the language model is given, or what the projector reads where that is made
    from several blocks; of a classifier the block before the last; of rows without images the middle block.
    """
    try:
        site = site_of(wanted) if wanted else _default(wrapper, rows)
        tower = wrapper.tower(site.tower)
    except ValueError as error:
        do = "write it as text.3.resid_out or vision.22.resid_out"
        raise AuditError(f"{edit}: `site` {error}", do) from None
    if site.part not in tower.parts or not (site.block or 0) < max(tower.n_blocks, 1) or site.head is not None:
        problem = f"{edit}: {wrapper.name} has no {site}"
        raise AuditError(problem, f"its {tower.name} tower has {tower.n_blocks} blocks; name resid_out of one")
    site = site.model_copy(update={"tower": tower.name})
    return Place(site, _same_first(rows) if tower.by_token else tower.leading, tower.by_token, wrapper.head_tower)


def _default(wrapper: Wrapper, rows: Rows) -> Site:
    if _PIXELS not in rows.extra:
        return Site(part="resid_out", block=(wrapper.n_blocks - 1) // 2)
    vision = wrapper.tower("vision")
    if wrapper.head_tower == "vision":
        return Site(part="resid_out", block=max(wrapper.n_blocks - 2, 0))
    if len(vision.read) == 1:
        return Site(part="resid_out", block=vision.read[0], tower="vision")
    return Site(part="embed", tower="projector")


def _same_first(rows: Rows) -> int:
    """1 where all rows begin with the same token, as with BOS: its state is the same in all and often far larger."""
    return int(len(rows) > 1 and bool((rows.ids[:, 0] == rows.ids[0, 0]).all()))


def check_read(edit: str, bench: Bench, parent: Checkpoint, rows: Rows, place: Place) -> None:
    """Does anything read what is written there? AuditError (code 2) by the edit's name where no logit moves."""
    few = rows.take(torch.arange(min(len(rows), 2)))
    with bench.without_store():
        states = bench.run(parent, few, [read := Read(site=place.site, at="all")])[read]
        d = states.shape[-1]
        direction = torch.randn(1, d, generator=torch.Generator().manual_seed(0)) * (1 + states.abs().max())
        zero = torch.zeros(1)
        push = GatedClamp(  # its code is 1 in every state
            place.site, zero.long(), torch.zeros(1, d), zero + 1, zero, direction, zero, zero + _PUSH, place.leading
        )  # fmt: skip
        answers = Read(site=Site(part="logits"), at="answer", reduce="logprob")
        before, after = (bench.run(parent, few, [answers], writes)[answers] for writes in ((), (push,)))
    if torch.equal(before, after):
        raise AuditError(f"{edit}: nothing reads {place.site}: an edit there moves no answer", "name a block that is "
                         f"read on: {_blocks_read(bench.open(parent).tower(place.site.tower))}")  # fmt: skip


def _blocks_read(tower: Tower) -> str:
    last = tower.read[-1] if tower.read else tower.n_blocks - 1
    return f"up to block {last} of the {tower.name} tower"


# ---- states -----------------------------------------------------------------------------------------------------
def sampled_states(
    bench: Bench, parent: Checkpoint, rows: Rows, place: Place, sample: PatchSample
) -> Float[Tensor, "state d"]:
    """The states at some places of every image, drawn by seed and number; of texts those of all tokens.

    Read some rows at a time, and what is not drawn is not held. Rows of one picture are read once.
    """
    rows = rows.take(distinct(rows))
    read, parts = Read(site=place.site, at="all"), list[Tensor]()
    with bench.without_store():
        first = bench.run(parent, rows.take(torch.arange(1)), [read])[read]
        at_once = max(1, _BYTES_AT_ONCE // (4 * first[0].numel()))
        for index in torch.arange(len(rows)).split(at_once):
            portion = rows.take(index)
            states = bench.run(parent, portion, [read])[read]
            if place.by_token:
                own = portion.mask.clone()
                own[:, : place.leading] = False
                parts.append(states[own])
            else:
                parts += [s[_drawn(s, place, sample, n)] for s, n in zip(states, index.tolist(), strict=True)]
    return torch.cat(parts)


def _drawn(states: Tensor, place: Place, sample: PatchSample, number: int) -> Int[Tensor, " place"]:
    total = len(states) - place.leading
    order = np.random.default_rng([sample.seed, total, number]).permutation(total)
    return torch.from_numpy(np.sort(order[: sample.count]) + place.leading)


def distinct(rows: Rows) -> Int[Tensor, " row"]:
    """The first row of every picture; of texts every row."""
    pixels = rows.extra.get(_PIXELS)
    if pixels is None:
        return torch.arange(len(rows))
    first: dict[bytes, int] = {}
    for n, picture in enumerate(pixels):
        first.setdefault(picture.contiguous().view(torch.uint8).numpy().tobytes(), n)
    return torch.tensor(list(first.values()))


# ---- a dictionary ------------------------------------------------------------------------------------------------
class Wanted(NamedTuple):
    """Which dictionary: that of a folder, or one of so many features for each channel, trained so."""

    folder: str
    factor: int
    k: int
    steps: int
    tokens: int
    seed: int
    patches: int


@contextmanager
def dictionary(
    edit: str, bench: Bench, parent: Checkpoint, data: EditData, place: Place, wanted: Wanted
) -> Generator[StoredDictionary]:  # fmt: skip
    """The dictionary of the site, for as long as its folder is needed: read, or trained on the rows of the edit.

    Its codes need no other feature's: a TopK dictionary is given a threshold. AuditError (code 2) by the edit's name
    for one of another site or width.
    """
    sample = PatchSample(count=wanted.patches, seed=wanted.seed)
    states = torch.cat([sampled_states(bench, parent, rows, place, sample) for rows in (data.forget, data.retain)])
    states = states[torch.randperm(len(states), generator=torch.Generator().manual_seed(wanted.seed))]
    few, name = max(_LEAST_HELD_OUT, len(states) // _HELD_OUT), str(place.site)
    held_out = TensorActivations({name: states[:few]})
    with TemporaryDirectory() as folder:
        if wanted.folder:
            yield _read(edit, Path(wanted.folder), place, held_out)
            return
        training = TensorActivations({name: states[few:] if len(states) > 2 * few else states})
        training.checkpoint, training.patches = parent.key, None if place.by_token else sample
        settings = TrainingSettings(
            architecture="batchtopk", features=wanted.factor * states.shape[1], k=wanted.k,
            rows=wanted.steps * wanted.tokens, batch=wanted.tokens, seed=wanted.seed,
        )  # fmt: skip
        (stored,) = train(training, held_out, settings, Path(folder), {name: place.site})
        yield stored


def _read(edit: str, folder: Path, place: Place, held_out: TensorActivations) -> StoredDictionary:
    stored, (width,) = read_dictionary(folder), held_out.widths
    if stored.coder.width != width:
        problem = f"{edit}: {folder} is of width {stored.coder.width}, and {place.site} of width {width}"
        raise AuditError(problem, "name a dictionary of that site")
    site = None if stored.record is None else stored.record.site
    if site is not None and site.model_copy(update={"tower": site.tower or place.head}) != place.site:
        raise AuditError(f"{edit}: {folder} was trained at {site}, and {place.site} is edited", f"set site={site}")
    gated = with_threshold(stored.coder, held_out, str(place.site))
    return stored if gated is stored.coder else stored._replace(coder=gated, record=None)


def put_beside(stored: StoredDictionary, folder: Path) -> None:
    """The whole dictionary in a folder of its own beside an edit, so that both go together: as it was trained, or, of
    one that was read, the form that was used."""
    if stored.record is None:
        write_dictionary(folder, stored.coder)
    else:
        shutil.copytree(stored.folder, folder)
