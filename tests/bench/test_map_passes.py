"""The bench on residual networks: maps shown as positions, the mean of a map for the state that the head reads."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from audit.bench import Bench, Replace, Start
from audit.bench.training.learners import WrapperLearner
from audit.schema import AuditError, Read, Site
from audit.wrappers import open_wrapper
from audit.wrappers.load_checks import check
from tests import image_toy

ROWS = image_toy.rows(5)
LOGPROB = Read(site=Site(part="logits"), at="key", reduce="logprob")
MINE, OTHER = (image_toy.checkpoint("resnet", seed) for seed in (0, 1))
WIDE = replace(ROWS, extra={"pixel_values": torch.rand(5, 1, 16, 40, generator=torch.Generator().manual_seed(0))})


def out(block: int) -> Site:
    return Site(part="resid_out", block=block)


@pytest.fixture(scope="module")
def bench() -> Bench:
    return Bench(token_budget=130)


def maps(rows: image_toy.Rows) -> list[Tensor]:
    """The maps after every block, by hooks of torch alone."""
    net, found = image_toy.model("resnet"), list[Tensor]()
    for stage in net.base_model.encoder.stages:
        for layer in stage.layers:
            layer.register_forward_hook(lambda module, args, output: found.append(output))
    with torch.no_grad():
        net(pixel_values=rows.extra["pixel_values"])
    return found


@pytest.mark.parametrize("rows", [ROWS, WIDE], ids=["square", "wide"])
def test_a_map_is_positions_row_by_row_and_its_mean_is_what_the_head_reads(rows: image_toy.Rows, bench: Bench) -> None:
    check(open_wrapper(MINE))
    whole, mean = ([Read(site=out(b), at=at) for b in range(3)] for at in ("all", "key"))  # type: ignore[arg-type]
    final = Read(site=Site(part="final_in"), at="all")
    found = bench.run(MINE, rows, [*whole, *mean, final])
    for block, own in enumerate(maps(rows)):
        torch.testing.assert_close(found[whole[block]], own.flatten(2).mT)
        torch.testing.assert_close(found[mean[block]], own.mean((2, 3)))
    torch.testing.assert_close(found[final][:, 0], found[mean[2]])


@pytest.mark.parametrize("rows", [ROWS, WIDE], ids=["square", "wide"])
def test_a_pass_goes_on_from_its_own_map_and_from_another_s(rows: image_toy.Rows, bench: Bench) -> None:
    plain = bench.run(MINE, rows, [LOGPROB])[LOGPROB]
    for block in range(3):
        assert torch.equal(bench.run(MINE, rows, [LOGPROB], start=Start(out(block), MINE))[LOGPROB], plain)
        theirs = bench.run(MINE, rows, [LOGPROB], start=Start(out(block), OTHER))[LOGPROB]
        replaced = bench.run(MINE, rows, [LOGPROB], [Replace(out(block), OTHER, "all")])[LOGPROB]
        torch.testing.assert_close(theirs, replaced)
        assert not torch.allclose(theirs, plain)
    with pytest.raises(AuditError, match="a state of 7 positions is no map"):
        bench.run(MINE, rows, [LOGPROB], start=Start(out(0), torch.zeros(5, 7, 16)))


def test_a_map_whose_mean_is_replaced_keeps_its_shape(bench: Bench) -> None:
    whole, mean = Read(site=out(0), at="all"), Read(site=out(0), at="answer")
    given = torch.randn(5, 16, generator=torch.Generator().manual_seed(1))
    found = bench.run(MINE, WIDE, [whole, mean], [Replace(out(0), given, "answer")])
    before = bench.run(MINE, WIDE, [whole])[whole]
    torch.testing.assert_close(found[mean], given)
    centred = before - before.mean(1, keepdim=True)
    torch.testing.assert_close(found[whole] - given[:, None], centred)


def test_a_block_of_another_width_is_not_scored_through_the_head(bench: Bench) -> None:
    lens = [Read(site=out(b), at="key", reduce="logprob") for b in range(3)]
    torch.testing.assert_close(bench.run(MINE, ROWS, lens[2:])[lens[2]], bench.run(MINE, ROWS, [LOGPROB])[LOGPROB])
    with pytest.raises(AuditError, match="is 16 wide, and the head reads 32"):
        bench.run(MINE, ROWS, lens[:1])


def test_neither_passes_nor_lessons_change_the_statistics_of_batches() -> None:
    wrapper = open_wrapper(MINE)
    model: torch.nn.Module = wrapper.model  # type: ignore[attr-defined]
    before = {name: b.clone() for name, b in model.named_buffers()}
    for parameter in wrapper.parameters().values():
        parameter.requires_grad_(True)
    WrapperLearner(wrapper).answers(ROWS).logprob.sum().backward()
    assert all(torch.equal(b, before[name]) for name, b in model.named_buffers()) and not model.training
