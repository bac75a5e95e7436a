"""Where is a name looked up? Base's answers when the state at the end of every name is that of another name.

``python -m studies.parametric_traces.lookup`` swaps, in the demo's world and in this study's, the state at the last
token of a person's name (wherever it stands) for the one that a retained person's name leaves there, as it enters the
first block and after each block, and writes the mean probability of the trained facts to lookup.json. Where nothing is
lost after a block, later positions do not read what is at the name's end there, and no edit of it can hide anything.
"""

import json
from pathlib import Path
from typing import Final

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from audit.bench import CausalLearner, wrapper_of
from audit.case import tokenise
from audit.schema import Site, Template
from audit.storage import write_atomic
from audit.wrappers import Batch, Tap, Wrapper
from audit.zoo import build, items, make_world, zoo_of
from studies.parametric_traces.models import WORLD
from studies.provenance import stamp

RESULTS: Final = Path(__file__).parent / "lookup.json"
WORLDS: Final = ("demo", WORLD)


def swapped(world: str, seed: int) -> dict[str, float]:
    """Mean probability of the content tokens: base as it is, then by the place of the swap."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder, invented = build(world, seed, workers=1).models["base"], make_world(seed, zoo_of(world).shape)
    tokenizer, wrapper = AutoTokenizer.from_pretrained(folder), _opened(folder, AutoModelForCausalLM)
    sites = [Site(part="resid_in", block=0), *(Site(part="resid_out", block=b) for b in range(wrapper.n_blocks))]
    other: list[int] = tokenizer(invented.people["retain"][0].name, add_special_tokens=False)["input_ids"]
    total, people = dict.fromkeys(("as it is", *map(str, sites)), 0.0), invented.people["forget"]
    for person in people:
        trained = [item for item in items(invented, "forget") if item.group == person.id and item.form == "trained"]
        rows = tokenise(trained, [item.answer for item in trained], tokenizer, Template(), None)
        name: list[int] = tokenizer(person.name, add_special_tokens=False)["input_ids"]
        ids, ends = _renamed(rows.ids, torch.tensor(name), torch.tensor(other))
        row, position = rows.targets("key")
        batch, renamed = Batch(rows.ids, rows.mask), Batch(ids, rows.mask)
        for place, site in (("as it is", None), *((str(site), site) for site in sites)):
            final = _final(wrapper, batch, renamed, ends, site)
            with torch.no_grad():
                logprob = wrapper.head(final[row, position - 1]).log_softmax(-1)
            chosen = logprob.gather(-1, rows.ids[row, position][:, None]).exp()
            total[place] += float(chosen.mean()) / len(people)
    return {place: round(value, 4) for place, value in total.items()}


def _opened(folder: Path, auto: type) -> Wrapper:
    return wrapper_of(CausalLearner(auto.from_pretrained(folder)))  # type: ignore[attr-defined]


def _renamed(
    ids: Int[Tensor, "row pos"], name: Int[Tensor, " n"], other: Int[Tensor, " n"]
) -> tuple[Int[Tensor, "row pos"], Bool[Tensor, "row pos"]]:
    """The rows with the other name in the name's place, and where names end."""
    windows = ids.unfold(1, len(name), 1)
    row, start = (windows == name).all(-1).nonzero(as_tuple=True)
    renamed, ends = ids.clone(), torch.zeros_like(ids, dtype=torch.bool)
    for offset, token in enumerate(other):
        renamed[row, start + offset] = token
    ends[row, start + len(name) - 1] = True
    return renamed, ends


def _final(wrapper: Wrapper, batch: Batch, renamed: Batch, ends: Tensor, site: Site | None) -> Tensor:
    """Final states of a batch whose states at ``ends`` are those of the renamed one."""
    seen: dict[str, Tensor] = {}

    def keep(place: str, state: Tensor) -> None:
        seen[place] = state

    def put(state: Tensor) -> Tensor:
        return torch.where(ends[..., None], seen["other"], state)

    last = Tap(Site(part="final_in"), lambda state: keep("final", state))
    with torch.no_grad():
        if site is not None:
            wrapper.forward(renamed, [Tap(site, lambda state: keep("other", state))])
        wrapper.forward(batch, [last] if site is None else [Tap(site, put), last])
    return seen["final"]


def main() -> None:
    """Measure and write."""
    torch.set_num_threads(1)
    before = stamp(0)
    document = {**before.model_dump(mode="json"), "worlds": {world: swapped(world, 0) for world in WORLDS}}
    write_atomic(RESULTS, (json.dumps(document, indent=1, sort_keys=True) + "\n").encode())


if __name__ == "__main__":
    main()
