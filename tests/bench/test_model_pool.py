"""The pool of open models: lending one to be changed gives it back to the byte, and nobody runs it meanwhile."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from audit.bench import Bench, ModelPool, Start
from audit.bench.cache_keys import Settings
from audit.checkpoints import write_edited
from audit.schema import AuditError, Checkpoint, Read, Site
from audit.wrappers import Wrapper
from tests import toy

SETTINGS = Settings("native", "cpu", "float32", "default")
ROWS = toy.rows(4)
LOGPROB = Read(site=Site(part="logits"), at="answer", reduce="logprob")


def bits(wrapper: Wrapper) -> dict[str, bytes]:
    return {
        n: p.detach().contiguous().view(-1).view(torch.uint8).numpy().tobytes() for n, p in wrapper.parameters().items()
    }


@torch.no_grad()
def spoil(wrapper: Wrapper) -> None:
    for parameter in wrapper.parameters().values():
        parameter.mul_(0.3).add_(float("nan"))


@pytest.mark.parametrize("family", ["llama", "qwen2"])
def test_model_that_was_altered_is_as_before_to_the_byte(family: str) -> None:
    pool, ckpt = ModelPool(SETTINGS), toy.checkpoint(family)
    before = bits(pool.open(ckpt))
    with pool.altered(ckpt) as wrapper:
        spoil(wrapper)
        assert bits(wrapper) != before
    assert pool.open(ckpt) is wrapper and bits(wrapper) == before


def test_model_is_as_before_when_the_block_fails() -> None:
    pool, ckpt = ModelPool(SETTINGS), toy.checkpoint("llama")
    before = bits(pool.open(ckpt))
    with pytest.raises(KeyError), pool.altered(ckpt) as wrapper:
        spoil(wrapper)
        raise KeyError
    assert bits(pool.open(ckpt)) == before


def test_nobody_runs_a_model_while_it_is_altered() -> None:
    bench, ckpt, other = Bench(), toy.checkpoint("llama"), toy.checkpoint("llama", 1)
    before: Tensor = bench.run(ckpt, ROWS, [LOGPROB])[LOGPROB]
    with bench.pool.altered(ckpt):
        with pytest.raises(AuditError, match="being changed"):
            bench.run(ckpt, ROWS, [LOGPROB])
        with pytest.raises(AuditError, match="being changed"):
            bench.run(other, ROWS, [LOGPROB], start=Start(Site(part="resid_out", block=0), ckpt))
        bench.run(other, ROWS, [LOGPROB])
    assert torch.equal(bench.run(ckpt, ROWS, [LOGPROB])[LOGPROB], before)


def hooked(out: Path) -> Checkpoint:
    return write_edited(out, toy.checkpoint("llama"), "bias", {}, "logit_bias", {"bias": torch.ones(toy.VOCAB)})


def test_weights_below_a_hook_are_neither_copied_nor_lent(tmp_path: Path) -> None:
    pool, ckpt = ModelPool(SETTINGS), hooked(tmp_path / "hooked")
    with pytest.raises(AuditError, match="edited by a hook"):
        pool.fresh(ckpt)
    with pytest.raises(AuditError, match="edited by a hook"), pool.altered(ckpt):
        pass


def test_fresh_copy_is_shared_with_nobody() -> None:
    pool, ckpt = ModelPool(SETTINGS), toy.checkpoint("llama")
    copy, own = pool.fresh(ckpt), pool.open(ckpt)
    assert copy is not own and bits(copy) == bits(own)
    spoil(copy)
    assert bits(pool.open(ckpt)) != bits(copy)


def test_weights_of_a_model_that_a_pass_opened_can_be_changed(tmp_path: Path) -> None:
    head = torch.randn(toy.VOCAB, 48)  # of its own, where the family ties it: that tensor is made while the pass runs
    other = write_edited(tmp_path / "head", toy.checkpoint("qwen2"), "head", {}, "weights", {"lm_head.weight": head})
    bench, start = Bench(), Start(Site(part="resid_out", block=0), other)
    bench.run(toy.checkpoint("qwen2"), ROWS, [LOGPROB], start=start)
    with bench.pool.altered(other) as wrapper:
        spoil(wrapper)
