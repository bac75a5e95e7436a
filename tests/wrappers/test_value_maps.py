"""The value vectors of an MLP, whichever way a family stores them."""

import pytest
import torch

from audit.bench import Bench
from audit.schema import Read, Site
from audit.wrappers import value_map
from tests.toy import FAMILIES, checkpoint, rows


@pytest.mark.parametrize("family", FAMILIES)
def test_hidden_units_times_their_value_vectors_are_what_the_mlp_writes(family: str) -> None:
    bench, model, texts = Bench(), checkpoint(family), rows(3)
    hidden, out = (Read(site=Site(part=part, block=1), at="all") for part in ("mlp_hidden", "mlp_out"))
    read = bench.run(model, texts, (hidden, out))
    wrapper = bench.open(model)
    values = value_map(wrapper, 1)
    written = read[hidden] @ values.vectors.float()
    module = next(m for m in wrapper.model.modules() if getattr(m, "weight", None) is wrapper.parameters()[values.name])
    if getattr(module, "bias", None) is not None:
        written = written + module.bias.detach()
    if family == "gemma2":
        written = wrapper.blocks[1].post_feedforward_layernorm(written)
    mask = texts.mask
    assert torch.allclose(written[mask], read[out][mask], atol=1e-5)
    assert torch.equal(values.stored(values.vectors), values.weight)
