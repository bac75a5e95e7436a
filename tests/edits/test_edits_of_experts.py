"""Edits of weights and of value vectors on mixtures: whatever chooses weights chooses those of experts too."""

from pathlib import Path

import pytest
import torch

from audit.bench import Bench, CausalLearner
from audit.checkpoints import delta_of
from audit.edits import PGA, RMU, ROCR, ROME, SCRUB, SSD, Needle, Projected, SalUn, TaskVector
from audit.edits._edit import Edit
from audit.edits._in_place import summed_gradients
from audit.edits._losses import nll
from audit.edits._redirection import Redirection
from audit.schema import Site
from audit.wrappers import value_map
from tests import expert_toy, toy
from tests.edits.test_redirection import ONE, said, state_at_end

families = pytest.mark.parametrize("family", expert_toy.FAMILIES)
SHORT = {"steps": 2, "warmup_steps": 0, "batch": 4}
TRAINED: dict[str, Edit] = {
    "salun": SalUn(share=0.5, **SHORT), "ssd": SSD(alpha=0.1, lam=0.5), "scrub": SCRUB(**SHORT),
    "task vector": TaskVector(**SHORT), "rmu": RMU(**SHORT), "projected": Projected(**SHORT),
    "pga": PGA(refit_every=1, **SHORT),
}  # fmt: skip


@pytest.mark.sampled
@pytest.mark.parametrize("family", ["mixtral", "gpt_oss"])
@pytest.mark.parametrize("name", TRAINED)
def test_edits_of_weights_reach_routed_experts(name: str, family: str, tmp_path: Path) -> None:
    bench, parent = Bench(), expert_toy.checkpoint(family)
    edited = TRAINED[name].fit(bench, parent, toy.edit_data(), tmp_path / "edited")
    delta, before = delta_of(edited, edited.edits[-1]), bench.open(parent).parameters()
    fused = [n for n, p in before.items() if p.ndim == 3 and ".layers.0." in n]
    assert len(fused) == 2 and set(fused) <= delta.keys()
    for n in fused:
        reached = (delta[n] != before[n]).flatten(1).any(1)
        assert int(reached.sum()) >= 3, "twelve rows are sent to nearly all experts"


@families
def test_importances_of_experts_are_those_of_the_single_experts(family: str) -> None:
    """The squared gradient of one row, of one expert's matrix alone: by a pass in which that matrix is a leaf."""
    model = expert_toy.model(family)
    rows = toy.rows(1, seed=4)
    summed = summed_gradients(CausalLearner(model), rows, 1, nll, torch.square)
    name = "model.layers.1.mlp.experts.down_proj"
    fused = model.get_parameter(name)
    for expert in range(4):
        leaf = fused.detach()[expert].clone().requires_grad_(True)
        home = model.get_submodule(name.rpartition(".")[0])
        whole = torch.stack([leaf if n == expert else fused.detach()[n] for n in range(4)])
        del home._parameters["down_proj"]
        home.down_proj = whole
        loss = nll(CausalLearner(model).answers(rows))
        (grad,) = torch.autograd.grad(loss, leaf)
        torch.testing.assert_close(summed[name][expert], grad.square(), atol=1e-9, rtol=1e-3)
        del home.down_proj
        home.register_parameter("down_proj", fused)


@pytest.mark.sampled
@families
@pytest.mark.parametrize("edit", [ROCR(ridge=1e-9, energy=0.01), ROME()])
def test_a_redirected_name_ends_in_the_targets_state(family: str, edit: Redirection) -> None:
    edit = edit.model_copy(update={"groups": ONE, "target": "kept2", "layers": "1", "mode": "unrelated"})
    live = CausalLearner(expert_toy.model(family))
    before, aim = state_at_end(live, ONE, 1), state_at_end(live, "kept2", 1)
    fresh = {name: p.clone() for name, p in live.parameters().items()}
    edit.apply(live, toy.edit_data())
    after = state_at_end(live, ONE, 1)
    assert (after - aim).norm() < 0.1 * (before - aim).norm()
    changed = {name for name, p in live.parameters().items() if not torch.equal(p, fresh[name])}
    assert changed == set(value_map(live.wrapper, 1).names)


@pytest.mark.sampled
@families
def test_hooks_and_folded_weights_give_the_same_logits(family: str, tmp_path: Path) -> None:
    bench, parent = Bench(), expert_toy.checkpoint(family)
    edit = ROCR(groups="person0,person1", target="kept1", layers="1")
    folded = edit.fit(bench, parent, toy.edit_data(), tmp_path / "folded")
    hooked = edit.model_copy(update={"folded": False}).fit(bench, parent, toy.edit_data(), tmp_path / "hooked")
    assert torch.allclose(said(bench, folded), said(bench, hooked), atol=5e-4)
    assert (said(bench, folded) - said(bench, parent)).abs().max() > 1e-3
    assert isinstance(folded.edits[-1].settings["largest share lost in rounding"], float)
    assert folded.edits[-1].settings["largest share lost in rounding"] < 1e-4, "float32 loses hardly anything"


@pytest.mark.sampled
@families
def test_the_strongest_units_are_found_in_blocks_of_any_width(family: str) -> None:
    """By hand: what a unit's activation times the gradient at it adds, forgotten content less retained."""
    live, data, beyond = CausalLearner(expert_toy.model(family)), toy.edit_data(), list[torch.Tensor]()
    for block in range(2):
        site, added = Site(part="mlp_hidden", block=block), list[torch.Tensor]()
        for rows in (data.forget, data.retain):
            forward = live.answers(rows, (site,))
            (grad,) = torch.autograd.grad(forward.logprob[forward.key].sum(), forward.states[site])
            added.append((forward.states[site].detach() * grad).sum((0, 1)) / len(rows))
        beyond.append(added[0] - added[1])
    fresh = [value_map(live.wrapper, block).vectors.clone() for block in range(2)]
    Needle(n=3, noise=1.0).apply(live, data)
    moved = torch.cat([(value_map(live.wrapper, b).vectors != fresh[b]).any(1) for b in range(2)])
    assert set(moved.nonzero()[:, 0].tolist()) == set(torch.cat(beyond).topk(3).indices.tolist())
