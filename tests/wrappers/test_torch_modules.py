"""Classifiers that are modules of torch: opened whole, hooked at the blocks that they name, and what is refused."""

import importlib
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from audit.checkpoints import check_compatible, code_files, model_config, resolve, write_edited
from audit.schema import AuditError, Checkpoint, Op, OwnCode, Site, Source
from audit.wrappers import Batch, Resume, Stop, Tap, Wrapper, fresh_model, open_wrapper, unused_tensors
from audit.wrappers.architectures import cifar_resnet
from audit.wrappers.load_checks import check
from audit.wrappers.native_module import ModuleWrapper
from audit.wrappers.torch_modules import shipped_architectures
from tests import image_toy
from tests import torch_module_toy as toy

ROWS = image_toy.rows(4)
PIXELS = ROWS.extra["pixel_values"]
BATCH = Batch(ROWS.ids, ROWS.mask, None, ROWS.extra)
FINAL = Site(part="final_in")


def out(block: int) -> Site:
    return Site(part="resid_out", block=block)


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder on Python's path with a module of the user's own."""
    place = tmp_path / "code"
    place.mkdir()
    (place / "own_tokens.py").write_text(toy.OWN)
    monkeypatch.syspath_prepend(str(place))
    importlib.invalidate_caches()
    yield place
    sys.modules.pop("own_tokens", None)


def own_folder(tmp_path: Path, **settings: Any) -> Path:
    """A checkpoint of that module, its arguments among the settings."""
    stated = {**toy.TOKENS, **settings}
    module = toy.randomised(importlib.import_module("own_tokens").Mixer(**stated["arguments"]))
    return toy.write(tmp_path / "own", module, stated)


def checkpoint_of(folder: Path, code: str | None = None) -> Checkpoint:
    return resolve(Source(path=str(folder), allow_code=code), folder)


def opened(folder: Path, code: str | None = None) -> ModuleWrapper:
    wrapper = open_wrapper(checkpoint_of(folder, code))
    assert isinstance(wrapper, ModuleWrapper)
    return wrapper


@torch.no_grad()
def read(wrapper: Wrapper, sites: list[Site], taps: tuple[Tap, ...] = (), **options: Any) -> dict[Site, Tensor]:
    states: dict[Site, Tensor] = {}

    def keep(at: Site) -> Callable[[Tensor], None]:
        return lambda state: states.update({at: state.clone()})

    wrapper.forward(options.pop("batch", BATCH), [*taps, *(Tap(s, keep(s)) for s in sites)], **options)
    return states


def check_operations(wrapper: ModuleWrapper) -> None:
    """Read, patch, resume, stop and score, at every block."""
    check(wrapper)
    own = wrapper.model(pixel_values=PIXELS).logits
    blocks = range(wrapper.n_blocks)
    whole = read(wrapper, [*map(out, blocks), FINAL])
    assert whole[FINAL].shape == (len(PIXELS), 1, wrapper.d_model)
    torch.testing.assert_close(wrapper.head(whole[FINAL][:, 0]), own)
    summary = wrapper.tower().summarised(wrapper.norm(whole[out(blocks[-1])]))
    torch.testing.assert_close(summary, whole[FINAL][:, 0])
    moved = read(wrapper, [FINAL], (Tap(FINAL, lambda x: x + 1),))[FINAL]
    torch.testing.assert_close(moved, whole[FINAL] + 1)
    for block in blocks:
        ran: list[int] = []
        noting = [lambda *_, i=i, ran=ran: ran.append(i) for i in blocks]
        handles = [b.register_forward_hook(note) for b, note in zip(wrapper.blocks, noting, strict=True)]
        resumed = read(wrapper, [FINAL], resume=Resume(block, whole[out(block)], "vision"))
        for handle in handles:
            handle.remove()
        assert torch.equal(resumed[FINAL], whole[FINAL]) and ran == list(range(block + 1, wrapper.n_blocks))
        ended = read(wrapper, [out(block)], stop=Stop(block, "vision"))
        assert torch.equal(ended[out(block)], whole[out(block)])
        same, other = (
            read(wrapper, [FINAL], (Tap(out(block), change),))[FINAL]
            for change in (lambda x: x.clone(), lambda x: x.roll(1, -1))
        )
        assert torch.equal(same, whole[FINAL]) and not torch.allclose(other, whole[FINAL], atol=1e-4)
    embeds = wrapper.inputs(BATCH)
    again = read(wrapper, [FINAL], batch=BATCH._replace(embeds=embeds))[FINAL]
    assert torch.equal(again, whole[FINAL])
    assert torch.equal(wrapper.model(pixel_values=PIXELS).logits, own), "hooks that are gone leave nothing"


# ---- what ships -----------------------------------------------------------------------------------------------------
def test_a_residual_network_that_ships_is_opened_and_hooked() -> None:
    wrapper = open_wrapper(toy.checkpoint())
    assert isinstance(wrapper, ModuleWrapper)
    check_operations(wrapper)
    plain = toy.resnet()
    assert torch.equal(wrapper.model(pixel_values=PIXELS).logits, plain(PIXELS))
    assert set(wrapper.parameters()) == {name for name, _ in plain.named_parameters()}
    tower = wrapper.tower()
    assert (tower.summary, tower.widths, tower.positions) == ("pooled", (4, 8, 16), 64)
    assert not {Op.PATTERN, Op.EMBEDS, Op.GENERATE} & wrapper.supports


def by_hand(x: Tensor, tensors: dict[str, Tensor], depth: int) -> Tensor:
    """The network of He et al., section 4.2 with option A, from a state dict and nothing of ours."""

    def normed(y: Tensor, name: str) -> Tensor:
        mean, var, weight, bias = (tensors[f"{name}.{part}"].view(1, -1, 1, 1) for part in
                                   ("running_mean", "running_var", "weight", "bias"))  # fmt: skip
        return (y - mean) / (var + 1e-5).sqrt() * weight + bias

    def convolved(y: Tensor, name: str, stride: int) -> Tensor:
        weight = tensors[f"{name}.weight"]
        patches = nn.functional.unfold(y, 3, padding=1, stride=stride)
        side = -(-y.shape[2] // stride)
        return (weight.flatten(1) @ patches).unflatten(2, (side, -1))

    x = normed(convolved(x, "conv1", 1), "bn1").clamp_min(0)
    for stage in (1, 2, 3):
        for block in range((depth - 2) // 6):
            at, stride = f"layer{stage}.{block}", 2 if stage > 1 and block == 0 else 1
            y = normed(convolved(x, f"{at}.conv1", stride), f"{at}.bn1").clamp_min(0)
            y = normed(convolved(y, f"{at}.conv2", 1), f"{at}.bn2")
            if stride == 2:
                side = torch.zeros(len(y), (y.shape[1] - x.shape[1]) // 2, *y.shape[2:])
                x = torch.cat([side, x[:, :, ::2, ::2], side], 1)
            x = (x + y).clamp_min(0)
    return x.mean((2, 3)) @ tensors["linear.weight"].T + tensors["linear.bias"]


@pytest.mark.parametrize("depth", [8, 14, 20])
def test_the_network_is_the_published_one(depth: int) -> None:
    net = toy.randomised(cifar_resnet.build(7, 3, depth, width=4), depth)
    x = torch.randn(2, 3, 12, 12, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(net(x), by_hand(x, dict(net.state_dict()), depth), rtol=1e-4, atol=1e-4)
    convolutions = [m for m in net.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    assert len(convolutions) == depth


def test_each_architecture_that_ships_builds() -> None:
    assert "cifar_resnet" in shipped_architectures()
    with pytest.raises(ValueError, match="none of 21 layers"):
        cifar_resnet.build(10, 3, 21)


def test_an_untrained_one_is_built_and_no_tensor_is_left_over() -> None:
    fresh = fresh_model(toy.checkpoint())
    assert dict(fresh.named_parameters()).keys() == dict(toy.resnet().named_parameters()).keys()
    assert unused_tensors(toy.checkpoint()) == ()
    with torch.device("meta"):
        assert fresh_model(toy.checkpoint()).device.type == "meta"


def test_opening_takes_nothing_from_the_generator_of_torch() -> None:
    before = torch.get_rng_state()
    open_wrapper(toy.checkpoint())
    assert torch.equal(before, torch.get_rng_state())


# ---- a module of the user's own -------------------------------------------------------------------------------------
@pytest.mark.parametrize("summary", [0, "mean"])
@pytest.mark.parametrize("normed", [True, False])
def test_a_module_of_the_user_s_own_is_opened_where_the_case_names_it(
    own: Path, tmp_path: Path, summary: int | str, normed: bool
) -> None:
    arguments = {"summary": summary, "normed": normed}
    folder = own_folder(tmp_path, summary=summary, norm="norm" if normed else None, arguments=arguments)
    wrapper = opened(folder, "own_tokens:Mixer")
    check_operations(wrapper)
    tower = wrapper.tower()
    assert tower.summary == ("class" if summary == 0 else "pooled")
    assert (tower.positions, tower.leading) == ((5, 1) if summary == 0 else (4, 0))
    assert wrapper.name == "Mixer (own_tokens:Mixer)"
    assert wrapper.vocab_size == image_toy.CLASSES


def test_what_stands_at_the_root_of_a_module_follows_it(own: Path, tmp_path: Path) -> None:
    model: Any = opened(own_folder(tmp_path), "own_tokens:Mixer").model
    model.train()
    assert model.module.training
    model.eval()
    assert not model.module.training, "dropout of its own would go on"
    model.to(torch.float64)
    assert model.module.scale.dtype == model.module.token.dtype == torch.float64
    assert model.module.places.shape == (5, 1), "what is computed when it is built keeps its values"
    torch.testing.assert_close(model.module.places.flatten().float(), torch.linspace(0, 1, 5))


def test_code_is_refused_unless_the_case_names_it(own: Path, tmp_path: Path) -> None:
    folder = own_folder(tmp_path)
    sys.modules.pop("own_tokens")
    for code in (None, "own_tokens:Other", "other:Mixer"):
        with pytest.raises(AuditError, match=r"code of its own \(own_tokens:Mixer\), which is never run") as caught:
            checkpoint_of(folder, code)
        assert caught.value.code == 2 and 'allow_code = "own_tokens:Mixer"' in caught.value.do
    allowed = checkpoint_of(folder, "own_tokens:Mixer")
    assert "own_tokens" not in sys.modules, "naming a checkpoint runs nothing"
    unasked = allowed.model_copy(update={"code": None})
    for way in (open_wrapper, fresh_model):
        with pytest.raises(AuditError, match="was not allowed"):
            way(unasked)
    assert "own_tokens" not in sys.modules


def test_code_that_changes_is_another_checkpoint(own: Path, tmp_path: Path) -> None:
    folder = own_folder(tmp_path)
    before = checkpoint_of(folder, "own_tokens:Mixer")
    (own / "own_tokens.py").write_text(toy.OWN + "\n# changed\n")
    after = checkpoint_of(folder, "own_tokens:Mixer")
    assert before.fingerprint == after.fingerprint and before.key != after.key
    for way in (open_wrapper, fresh_model):
        with pytest.raises(AuditError, match="its code has changed") as caught:
            way(before)
        assert caught.value.code == 3


@pytest.mark.parametrize(
    ("module", "words"),
    [("own_tokens:absent", "no class or function 'absent'"), ("own_tokens:torch", "no class or function 'torch'"),
     ("own_tokens:Broken", "no module is built by own_tokens:Broken: ValueError: of its own"),
     ("own_tokens:number", "but int"), ("own_broken:Mixer", "the code own_broken:Mixer cannot be imported"),
     ("nowhere_at_all:Mixer", "is nowhere on Python's path"), ("own_tokens:a.b", "names no code"),
     ("../own_tokens:Mixer", "names no code"), ("sys:exit", "is nowhere on Python's path")],
)  # fmt: skip
def test_code_that_builds_no_module_is_said(own: Path, tmp_path: Path, module: str, words: str) -> None:
    more = "\ndef number():\n    return 3\n\ndef Broken():\n    raise ValueError('of its own')\n"
    (own / "own_tokens.py").write_text(toy.OWN + more)
    (own / "own_broken.py").write_text("import nothing_of_this_name\n")
    folder = toy.changed(tmp_path / "changed", toy.folder(), {"module": module, "arguments": {}})
    with pytest.raises(AuditError) as caught:
        opened(folder, module)
    assert words in caught.value.what, caught.value.what
    assert caught.value.code == 2


# ---- names that are not there, and states that are not as said ----------------------------------------------------
_SWAPPED = ("layer2.0", "layer1.0", "layer3.0")


@pytest.mark.parametrize(
    ("settings", "words", "do"),
    [({"blocks": ["layer1.0", "layer2.7"]}, "`blocks` names 'layer2.7', and the module has no such", "layer2.0"),
     ({"head": "fc"}, "`head` names 'fc', and the module has no such submodule", "it has conv1, bn1, layer1"),
     ({"blocks": _SWAPPED}, "'layer1.0' does not read what 'layer2.0' gives", "in the order"),
     ({"blocks": ["layer1.0", "layer3.0"]}, "'layer3.0' does not read what 'layer1.0' gives", "as a block too"),
     ({"blocks": ["layer1.0", "layer2.0"]}, "reads something else than the mean over all positions", "as the last"),
     ({"blocks": ["layer1.0", "layer1.0"]}, "names 'layer1.0' twice", "say"),
     ({"blocks": ["layer1", "layer1.0"]}, "names 'layer1.0', which lies in another", "say"),
     ({"blocks": []}, "`blocks`: ", "say"),
     ({"blocks": "layer1.0"}, "`blocks`: ", "say"),
     ({"blocks": [*toy.BLOCKS, "linear"]}, "'linear' gives [2, 10], and a stream of map has 4 dimensions", "stream"),
     ({"head": "layer3.0"}, "does not read one state an image once", "last linear"),
     ({"stream": "tokens", "summary": 0}, "gives [2, 4, 8, 8], and a stream of tokens has 3", "stream"),
     ({"stream": "tokens"}, "`summary` is missing", "summary"),
     ({"stream": "field"}, "`stream`: input should be 'map' or 'tokens'", "say"),
     ({"summary": 0}, "of a `map` the head reads the mean", "say"),
     ({"num_channels": 0}, "`num_channels`: ", "say"), ({"image_size": "8"}, "`image_size`: ", "say"),
     ({"num_channels": 3, "arguments": {"depth": 8, "width": 4}}, "conv1.weight is [4, 1, 3, 3], and", "save"),
     ({"num_labels": 4}, "linear.bias is [10], and [4] in the module", "save"),
     ({"arguments": {"depth": 9}}, "no module is built by cifar_resnet: ValueError: there is none of 9", "arguments"),
     ({"arguments": {"size": 9}}, "no module is built by cifar_resnet: TypeError", "arguments"),
     ({"arguments": {"depth": 14, "width": 4}}, "are not in its files (first: layer1.1.bn1", "save"),
     ({"module": "cifar_densenet"}, "there is no architecture 'cifar_densenet'", "cifar_resnet")],
)  # fmt: skip
def test_what_is_wrong_with_the_settings_is_said_with_what_there_is(
    settings: dict[str, Any], words: str, do: str, tmp_path: Path
) -> None:
    folder = toy.changed(tmp_path / "changed", toy.folder(), settings)
    with pytest.raises(AuditError) as caught:
        opened(folder)
    assert words in caught.value.what and str(folder) in caught.value.what, caught.value.what
    assert do in caught.value.do and caught.value.code in (2, 3)


@pytest.mark.parametrize("lost", ["module", "blocks", "head", "stream", "num_channels", "image_size"])
def test_a_setting_that_is_missing_is_named(lost: str, tmp_path: Path) -> None:
    with pytest.raises(AuditError, match=f"config.json: `{lost}` is missing") as caught:
        checkpoint_of(toy.changed(tmp_path / "changed", toy.folder(), {}, (lost,)))
    assert caught.value.code == 2


@pytest.mark.parametrize("name", ["layer2.0.conv2.weight", "bn1.running_var", "linear.bias"])
@pytest.mark.parametrize("fault", ["lost", "renamed", "added"])
def test_the_files_hold_just_the_module_s_state_dict(name: str, fault: str, tmp_path: Path) -> None:
    folder = toy.changed(tmp_path / "changed", toy.folder(), {})
    tensors = load_file(folder / "model.safetensors")
    value = tensors[name].clone() if fault == "added" else tensors.pop(name)
    if fault != "lost":
        tensors[f"module.{name}"] = value
    save_file(tensors, folder / "model.safetensors")
    with pytest.raises(AuditError) as caught:
        opened(folder)
    assert caught.value.code == 3
    if fault != "added":
        assert f"are not in its files (first: {name})" in caught.value.what
    if fault != "lost":
        assert f"are none of the module's (first: module.{name})" in caught.value.what


def test_counts_of_batches_may_be_missing(tmp_path: Path) -> None:
    folder = toy.changed(tmp_path / "changed", toy.folder(), {})
    tensors = load_file(folder / "model.safetensors")
    others = {name: value for name, value in tensors.items() if not name.endswith("num_batches_tracked")}
    assert len(others) < len(tensors)
    save_file(others, folder / "model.safetensors")
    assert torch.equal(opened(folder).model(pixel_values=PIXELS).logits, toy.resnet()(PIXELS))


_WRONG: dict[str, tuple[str, str, str]] = {
    "in place": ("x = self.later(self.first(x))", "x = self.first(x)\n        y = self.later[0](x)\n        x.add_(1)\n"
                 "        x = self.later[1](y)", "what 'first' hands on is written into afterwards"),
    "between": ("x = self.later(self.first(x))", "x = self.later(2 * self.first(x))",
                "'later.0' does not read what 'first' gives"),
    "twice": ("x = self.later(self.first(x))", "x = self.later(self.first(self.first(x)))",
              "'first' gave states 2 times in a pass"),
    "never": ("x = self.later(self.first(x))", "x = self.later(x)", "'first' gave no state in a pass"),
    "more than the head": ("return self.out(x[:, 0] if", "return 2 * self.out(x[:, 0] if",
                           "its logits are not what its `head` gives"),
    "another position": ("x[:, 0]", "x[:, 1]", "something else than the first position after the last of its `blocks`"),
    "all positions": ("self.out(x[:, 0] if self.summary == 0 else x.mean(1))", "self.out(x)[:, 0]",
                      "does not read one state an image once"),
    "crashes": ("x = self.later(self.first(x))", "raise ValueError('of its own')",
                "the module does not run on an image: ValueError: of its own"),
}  # fmt: skip


@pytest.mark.parametrize("kind", _WRONG)
def test_a_module_that_does_not_run_as_its_settings_say_is_refused(kind: str, own: Path, tmp_path: Path) -> None:
    before, after, words = _WRONG[kind]
    folder = own_folder(tmp_path)
    sys.modules.pop("own_tokens")
    assert before in toy.OWN
    (own / "own_tokens.py").write_text(toy.OWN.replace(before, after))
    importlib.invalidate_caches()
    with pytest.raises(AuditError) as caught:
        opened(folder, "own_tokens:Mixer")
    assert words in caught.value.what and caught.value.code == 2, caught.value.what


# ---- code, edits and reports ----------------------------------------------------------------------------------------
def test_a_folder_that_was_received_does_not_allow_its_own_code(own: Path, tmp_path: Path) -> None:
    code = "own_tokens:Mixer"
    parent = checkpoint_of(own_folder(tmp_path), code)
    bias = load_file(Path(parent.source) / "model.safetensors")["out.bias"] - 5
    write_edited(tmp_path / "edited", parent, "by hand", {}, "weights", {"out.bias": bias})
    edit = tmp_path / "edited" / "edit.json"
    document = json.loads(edit.read_text())
    assert "allow_code" not in document["parent"]
    allowed = checkpoint_of(tmp_path / "edited", code)
    assert allowed.code is not None and allowed.code.name == code
    document["parent"]["allow_code"] = code
    edit.write_text(json.dumps(document))
    with pytest.raises(AuditError, match="never run unless the case allows it by name"):
        checkpoint_of(tmp_path / "edited")


def test_code_that_is_allowed_and_not_asked_for_is_a_fault_of_the_case() -> None:
    with pytest.raises(AuditError, match="`allow_code` names 'own:Thing', and this checkpoint names no code"):
        checkpoint_of(toy.folder(), "own:Thing")
    with pytest.raises(AuditError, match="`allow_code` names 'own:Thing', and this checkpoint names no code"):
        checkpoint_of(image_toy.folder("vit"), "own:Thing")


def test_a_case_without_code_reads_and_hashes_as_it_always_did() -> None:
    assert "allow_code" not in Source(path="x").model_dump() and "allow_code" not in Source(path="x").canonical()
    assert "code" not in toy.checkpoint().model_dump()
    with_code = Source(path="x", allow_code="own:Thing")
    assert Source.model_validate_json(with_code.canonical()) == with_code
    ckpt = toy.checkpoint().model_copy(update={"code": OwnCode(name="own:Thing", sha256="0")})
    assert Checkpoint.model_validate_json(ckpt.canonical()) == ckpt and ckpt.key != toy.checkpoint().key


def test_every_file_of_a_package_is_part_of_its_code(own: Path) -> None:
    package = own / "own_package"
    (package / "inner").mkdir(parents=True)
    for name in ("__init__.py", "parts.py", "inner/__init__.py", "inner/deep.py"):
        (package / name).write_text("raise SystemExit('it ran')\n")
    importlib.invalidate_caches()
    files = code_files("own_package.inner.deep:Thing")
    assert set(files) == {f"own_package/{n}" for n in ("__init__.py", "parts.py", "inner/__init__.py", "inner/deep.py")}


def test_the_image_processor_is_part_of_what_a_module_is(tmp_path: Path) -> None:
    folder = toy.changed(tmp_path / "changed", toy.folder(), {})
    before = checkpoint_of(folder).fingerprint
    path = folder / "preprocessor_config.json"
    path.write_text(path.read_text().replace("0.5", "0.25"))
    assert checkpoint_of(folder).fingerprint != before


def test_modules_are_compared_by_their_settings_and_shapes(tmp_path: Path) -> None:
    base = toy.checkpoint()
    check_compatible(base, toy.checkpoint(1))
    other = checkpoint_of(toy.changed(tmp_path / "changed", toy.folder(), {"blocks": toy.BLOCKS[:2]}))
    with pytest.raises(AuditError, match="another architecture than .*blocks"):
        check_compatible(base, other)
    sizes = model_config(base)
    assert (sizes.blocks, sizes.width) == (3, toy.WIDTH)


def test_a_model_that_is_saved_again_is_the_same_checkpoint(tmp_path: Path) -> None:
    model: Any = open_wrapper(toy.checkpoint()).model  # type: ignore[attr-defined]
    model.save_pretrained(tmp_path / "again")
    image_toy.processor().save_pretrained(tmp_path / "again")
    again = opened(tmp_path / "again")
    assert torch.equal(again.model(pixel_values=PIXELS).logits, toy.resnet()(PIXELS))
    check_compatible(toy.checkpoint(), checkpoint_of(tmp_path / "again"))
