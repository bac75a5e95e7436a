"""Dictionaries on disk: sae_lens and we open one another's with the same codes, and none is opened as another code."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from audit.schema import AuditError
from saes import SparseCoder, dictionaries_in, read_dictionary, rescaled, write_dictionary
from tests.saes.planted_rows import random_coder

X = torch.randn(200, 6, generator=torch.Generator().manual_seed(3)) * 2 + 1
Config = dict[str, Any]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_dictionary(tmp_path / "topk", random_coder("topk"))
    return tmp_path / "topk"


def changed(folder: Path, **settings: object) -> Path:
    """The folder with settings in its configuration changed; None takes one out."""
    config = json.loads((folder / "cfg.json").read_text()) | settings
    (folder / "cfg.json").write_text(json.dumps({name: v for name, v in config.items() if v is not None}))
    return folder


def refused(folder: Path, *words: str) -> AuditError:
    with pytest.raises(AuditError) as error:
        read_dictionary(folder)
    assert error.value.code == 3 and str(folder) in error.value.what and error.value.do
    for word in words:
        assert word in error.value.what
    return error.value


# ---- there and back ---------------------------------------------------------------------------------------------
@pytest.mark.parametrize("centred", [True, False])
@pytest.mark.parametrize("activation", ["topk", "jumprelu", "relu"])
def test_what_is_written_is_read_and_opened_by_sae_lens_with_the_same_codes(
    activation: str, centred: bool, tmp_path: Path
) -> None:
    from dataclasses import replace

    from sae_lens import SAE

    coder = replace(random_coder(activation), centred=centred)
    write_dictionary(tmp_path / "d", coder)
    assert read_dictionary(tmp_path / "d").coder.name == coder.name
    theirs = SAE.load_from_disk(tmp_path / "d")
    with torch.no_grad():
        assert torch.equal(theirs.encode(X), coder.encode(X)) and (coder.encode(X) > 0).any()
        assert torch.equal(theirs.decode(theirs.encode(X)), coder.decode(coder.encode(X)))


def autoencoder(architecture: str) -> Any:
    """One of sae_lens's in training form, with weights that mean nothing and decoder rows of unequal norms."""
    import sae_lens

    names = {"topk": "TopK", "batchtopk": "BatchTopK", "jumprelu": "JumpReLU", "standard": "Standard"}
    kind = f"{names[architecture]}TrainingSAE"
    settings = {"k": 3} if "topk" in architecture else {}
    sae = getattr(sae_lens, kind)(getattr(sae_lens, f"{kind}Config")(d_in=6, d_sae=10, **settings))
    with torch.no_grad():
        for parameter in sae.parameters():
            parameter.copy_(torch.rand(parameter.shape, generator=torch.Generator().manual_seed(8)) - 0.3)
    if architecture == "batchtopk":
        sae.topk_threshold = torch.tensor(0.7, dtype=torch.double)
    return sae


@pytest.mark.parametrize("form", ["save_model", "save_inference_model"])
@pytest.mark.parametrize("architecture", ["topk", "batchtopk", "jumprelu", "standard"])
def test_what_sae_lens_saves_is_opened_with_the_same_codes(architecture: str, form: str, tmp_path: Path) -> None:
    from sae_lens import SAE

    sae = autoencoder(architecture)
    sae.save_inference_model(tmp_path / "inference")
    theirs = SAE.load_from_disk(tmp_path / "inference")
    getattr(sae, form)(tmp_path / "d")
    coder = read_dictionary(tmp_path / "d").coder
    with torch.no_grad():
        torch.testing.assert_close(coder.encode(X), theirs.encode(X), atol=1e-5, rtol=1e-5)
        assert torch.equal(coder.encode(X) > 0, theirs.encode(X) > 0) and (coder.encode(X) > 0).any()
        torch.testing.assert_close(coder.decode(coder.encode(X)), theirs(X), atol=1e-5, rtol=1e-5)


def test_a_training_in_progress_opens_at_the_scale_of_its_inputs(folder: Path) -> None:
    coder = read_dictionary(folder).coder
    refused(changed(folder, normalize_activations="expected_average_only_in"), "activation_scaler.json does not say")
    (folder / "activation_scaler.json").write_text('{"scaling_factor": 0.25}')
    assert read_dictionary(folder).coder.name == rescaled(coder, 0.25).name


# ---- a code is not opened as another ----------------------------------------------------------------------------
def old(folder: Path, **settings: object) -> Path:
    """The same weights under a configuration of before sae_lens 6, which names the activation in a key of its own."""
    config: Config = {"architecture": "standard", "d_in": 6, "d_sae": 10, "dtype": "float32", "hook_name": "h"}
    (folder / "cfg.json").write_text(json.dumps(config | settings))
    return folder


@pytest.mark.parametrize("key", ["activation_fn", "activation_fn_str"])
def test_topk_named_in_an_old_configuration_is_topk_and_without_its_number_nothing(key: str, folder: Path) -> None:
    """sae_lens #553: such dictionaries were opened as dense ones."""
    coder = read_dictionary(folder).coder
    opened = read_dictionary(old(folder, **{key: "topk", "activation_fn_kwargs": {"k": 3}})).coder
    assert (opened.activation, opened.k) == ("topk", 3) and torch.equal(opened.encode(X), coder.encode(X))
    refused(old(folder, **{key: "topk"}), "TopK", "k = None")
    refused(old(folder, **{key: "topk", "activation_fn_kwargs": {"k": 11}}), "k = 11")
    refused(old(folder, **{key: "tanh-relu"}), "tanh-relu")
    refused(old(folder, architecture="jumprelu", **{key: "topk"}), "jumprelu", "topk")
    assert read_dictionary(old(folder, **{key: "relu"})).coder.activation == "relu"


DISGUISED: list[tuple[Config, str]] = [
    ({"architecture": "standard"}, "k = 3"),
    ({"architecture": "jumprelu"}, "k = 3"),
    ({"architecture": "standard", "k": None, "metadata": {"sae_lens_version": "6.0", "training_architecture": "topk"}},
     "trained as topk"),
    ({"k": None}, "k = None"), ({"k": 0}, "k = 0"), ({"k": 2.5}, "k = 2.5"), ({"k": True}, "k = True"),
    ({"architecture": "gated"}, "'gated'"), ({"architecture": None}, "architecture None"),
    ({"architecture": 7}, "architecture 7"), ({"architecture": ["topk"]}, "['topk']"),
    ({"activation_fn": "relu", "activation_fn_str": "topk"}, "relu and topk"),
    ({"normalize_activations": "layer_norm"}, "layer_norm"), ({"reshape_activations": "hook_z"}, "heads"),
    ({"finetuning_scaling_factor": True}, "finetuning_scaling_factor"), ({"shift": 3}, "unknown settings shift"),
    ({"d_in": 7}, "'W_enc' is [6, 10]"), ({"d_sae": 9}, "'W_enc' is [6, 10]"), ({"d_in": "6"}, "d_in = '6'"),
    ({"d_in": None}, "d_in = None"), ({"apply_b_dec_to_input": 1}, "neither true nor false"),
    ({"metadata": []}, ""), ({"metadata": "x"}, "metadata"),
]  # fmt: skip


@pytest.mark.parametrize(("settings", "word"), DISGUISED)
def test_a_configuration_that_is_not_understood_is_refused_by_its_setting(
    settings: Config, word: str, folder: Path
) -> None:
    if settings.get("metadata") == []:  # nothing is stated: a configuration of before 6, of the same code
        assert read_dictionary(changed(folder, **settings)).coder.k == 3
    else:
        refused(changed(folder, **settings), word)


# ---- damaged, truncated, foreign --------------------------------------------------------------------------------
def weights(change: Callable[[dict[str, torch.Tensor]], object]) -> Callable[[Path], None]:
    def apply(folder: Path) -> None:
        tensors = load_file(folder / "sae_weights.safetensors")
        change(tensors)
        save_file(tensors, folder / "sae_weights.safetensors")

    return apply


def cut(name: str, size: int) -> Callable[[Path], None]:
    return lambda folder: (folder / name).write_bytes((folder / name).read_bytes()[:size]) and None


def flipped(folder: Path) -> None:
    path = folder / "sae_weights.safetensors"
    data = bytearray(path.read_bytes())
    data[-40] ^= 4
    path.write_bytes(bytes(data))


def nan(tensors: dict[str, torch.Tensor]) -> None:
    tensors["b_enc"][3] = float("nan")


DAMAGED: list[tuple[Callable[[Path], Any], str]] = [
    (cut("sae_weights.safetensors", 300), "truncated"), (cut("sae_weights.safetensors", 0), "truncated"),
    (cut("cfg.json", 40), "not whole JSON"), (cut("cfg.json", 0), "not whole JSON"),
    (lambda folder: (folder / "cfg.json").write_text("[1]"), "no object"), (flipped, "not those that were written"),
    (lambda folder: (folder / "sae_weights.safetensors").unlink(), "is missing"),
    (lambda folder: (folder / "cfg.json").unlink(), "is missing"),
    (weights(lambda t: t.pop("b_dec")), "'b_dec' is missing"), (weights(nan), "'b_enc' holds a NaN"),
    (weights(lambda t: t.update(W_dec=t["W_dec"].T.contiguous())), "'W_dec' is [6, 10]"),
    (weights(lambda t: t.update(W_skip=torch.ones(6, 6))), "'W_skip' has no place"),
    (weights(lambda t: t.update(b_enc=torch.ones(10, dtype=torch.int64))), "torch.int64"),
    (weights(lambda t: t.update(threshold=torch.ones(10))), "'threshold' has no place"),
    (lambda folder: (folder / "residua.json").write_text("{}"), "not our record"),
]  # fmt: skip


@pytest.mark.parametrize(("damage", "word"), DAMAGED)
def test_a_damaged_folder_is_refused_with_what_and_where(
    damage: Callable[[Path], Any], word: str, folder: Path
) -> None:
    damage(folder)
    refused(folder, word)


@pytest.mark.parametrize("size", range(0, 700, 37))
def test_no_beginning_of_a_file_of_weights_is_opened(size: int, folder: Path) -> None:
    assert (folder / "sae_weights.safetensors").stat().st_size > 700
    cut("sae_weights.safetensors", size)(folder)
    refused(folder, "sae_weights.safetensors")


def test_a_folder_without_a_dictionary_is_input_and_several_are_all_listed(folder: Path) -> None:
    shutil.copytree(folder, folder.parent / "another")
    assert dictionaries_in(folder) == (folder,)
    assert dictionaries_in(folder.parent) == (folder.parent / "another", folder)
    for wrong in (folder / "nothing", Path("no/such/folder")):
        with pytest.raises(AuditError) as error:
            dictionaries_in(wrong)
        assert error.value.code == 2
        with pytest.raises(AuditError) as error:
            read_dictionary(wrong)
        assert error.value.code == 2


def test_equal_dictionaries_are_written_in_equal_bytes(folder: Path) -> None:
    again = write_dictionary(folder.parent / "again", random_coder("topk"))
    coder: SparseCoder = read_dictionary(folder).coder
    assert again == write_dictionary(folder.parent / "third", coder)
