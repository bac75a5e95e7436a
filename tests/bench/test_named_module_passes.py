"""The bench on modules of torch whose blocks are named: the same reads, patches, starts and lessons as on others."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from audit.bench import Bench, Replace, Start, TrainData, TrainingRecipe
from audit.bench.training.learners import WrapperLearner
from audit.checkpoints import resolve, write_edited
from audit.schema import AuditError, Checkpoint, Read, Site, Source
from audit.wrappers import open_wrapper
from tests import image_toy
from tests import torch_module_toy as toy

ROWS = image_toy.rows(5)
LOGPROB = Read(site=Site(part="logits"), at="key", reduce="logprob")
MINE, OTHER = (toy.checkpoint(seed) for seed in (0, 1))
WIDE = replace(ROWS, extra={"pixel_values": torch.rand(5, 1, 8, 20, generator=torch.Generator().manual_seed(0))})
shapes = pytest.mark.parametrize("rows", [ROWS, WIDE], ids=["square", "wide"])


def out(block: int) -> Site:
    return Site(part="resid_out", block=block)


@pytest.fixture(scope="module")
def bench() -> Bench:
    return Bench(token_budget=130)


def by_torch(rows: image_toy.Rows) -> tuple[list[Tensor], Tensor]:
    """The maps after every named block and the logits, by hooks of torch alone."""
    net, maps = toy.resnet(), list[Tensor]()
    for name in toy.BLOCKS:
        net.get_submodule(name).register_forward_hook(lambda module, args, output: maps.append(output))
    with torch.no_grad():
        logits = net(rows.extra["pixel_values"])
    return maps, logits


@shapes
def test_maps_means_and_scores_are_the_module_s_own(rows: image_toy.Rows, bench: Bench) -> None:
    whole, mean = ([Read(site=out(b), at=at) for b in range(3)] for at in ("all", "key"))  # type: ignore[arg-type]
    results = bench.run(MINE, rows, [*whole, *mean, LOGPROB])
    maps, logits = by_torch(rows)
    for block, own in enumerate(maps):
        torch.testing.assert_close(results[whole[block]], own.flatten(2).mT)
        torch.testing.assert_close(results[mean[block]], own.mean((2, 3)))
    scored = logits.log_softmax(-1).gather(1, rows.ids[:, 1:])[:, 0]
    torch.testing.assert_close(results[LOGPROB].flatten(), scored)


@shapes
def test_a_pass_goes_on_from_its_own_state_and_from_another_s(rows: image_toy.Rows, bench: Bench) -> None:
    plain = bench.run(MINE, rows, [LOGPROB])[LOGPROB]
    for block in range(3):
        assert torch.equal(bench.run(MINE, rows, [LOGPROB], start=Start(out(block), MINE))[LOGPROB], plain)
        theirs = bench.run(MINE, rows, [LOGPROB], start=Start(out(block), OTHER))[LOGPROB]
        replaced = bench.run(MINE, rows, [LOGPROB], [Replace(out(block), OTHER, "all")])[LOGPROB]
        torch.testing.assert_close(theirs, replaced)
        assert not torch.allclose(theirs, plain)


def test_the_last_block_scored_through_the_head_is_the_model_s_own_score(bench: Bench) -> None:
    lens = [Read(site=out(b), at="key", reduce="logprob") for b in range(3)]
    torch.testing.assert_close(bench.run(MINE, ROWS, lens[2:])[lens[2]], bench.run(MINE, ROWS, [LOGPROB])[LOGPROB])
    with pytest.raises(AuditError, match="is 4 wide, and the head reads 16"):
        bench.run(MINE, ROWS, lens[:1])


def test_gradients_are_those_of_torch(bench: Bench) -> None:
    results = bench.gradients(MINE, ROWS, "params", lambda forward: forward.logprob)
    net = toy.resnet()
    logits = net(ROWS.extra["pixel_values"])
    logits.log_softmax(-1).gather(1, ROWS.ids[:, 1:]).sum().backward()
    for name, parameter in net.named_parameters():
        torch.testing.assert_close(results.at_params[name], parameter.grad, rtol=1e-4, atol=1e-5)


def test_lessons_change_weights_and_no_statistics() -> None:
    wrapper: Any = open_wrapper(MINE)
    before = {name: b.clone() for name, b in wrapper.model.named_buffers()}
    for parameter in wrapper.parameters().values():
        parameter.requires_grad_(True)
    WrapperLearner(wrapper).answers(ROWS).logprob.sum().backward()
    assert all(torch.equal(b, before[name]) for name, b in wrapper.model.named_buffers())
    assert not wrapper.model.training and all(p.grad is not None for p in wrapper.parameters().values())


def test_a_copy_is_trained_and_written_under_the_module_s_own_names(bench: Bench, tmp_path: Path) -> None:
    def loss(forget: Any, *_: object) -> Tensor:
        return -forget.logprob.mean()

    recipe = TrainingRecipe("fit", loss, steps=8, lr=1e-2, batch=5, warmup_steps=1)
    before = bench.run(MINE, ROWS, [LOGPROB])[LOGPROB].mean()
    (record,) = bench.train([MINE], [recipe], TrainData(ROWS), [8], tmp_path)
    folder = tmp_path / "0-fit-8"
    learnt = resolve(Source(path=str(folder)), tmp_path)
    assert learnt.edits == (record,) and bench.run(learnt, ROWS, [LOGPROB])[LOGPROB].mean() > before + 0.5
    assert load_file(folder / "delta.safetensors").keys() <= dict(toy.resnet().named_parameters()).keys()


def edited(parent: Checkpoint, out: Path, values: Mapping[str, Tensor]) -> Checkpoint:
    return write_edited(out, parent, "by hand", {}, "weights", values)


def test_an_edit_of_a_weight_is_played_back_by_its_name(bench: Bench, tmp_path: Path) -> None:
    bias = toy.resnet().get_parameter("linear.bias").detach().clone()
    bias[3] -= 50
    changed = edited(MINE, tmp_path / "edited", {"linear.bias": bias})
    assert changed.key != MINE.key and resolve(Source(path=str(tmp_path / "edited")), tmp_path).key == changed.key
    net: nn.Module = toy.resnet()
    net.get_parameter("linear.bias").data.copy_(bias)
    with torch.no_grad():
        logits = net(ROWS.extra["pixel_values"])
    scored = bench.run(changed, ROWS, [LOGPROB])[LOGPROB].flatten()
    torch.testing.assert_close(scored, logits.log_softmax(-1).gather(1, ROWS.ids[:, 1:])[:, 0])


def test_weights_of_two_stand_side_by_side() -> None:
    names = [name for name, _ in Bench().weights(MINE, OTHER)]
    assert names == sorted(name for name, _ in toy.resnet().named_parameters())
