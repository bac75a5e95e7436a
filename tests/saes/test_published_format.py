"""The format of the published restoration test: converted exactly, as tensors alone, or refused."""

import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from audit.schema import AuditError
from saes import read_published, standardised

CONFIG: dict[str, Any] = {"input_dim": 6, "hidden_dim": 10, "k": 3, "activation": "topk"}
X = torch.randn(100, 6, generator=torch.Generator().manual_seed(2)) + 1


def tensors() -> dict[str, torch.Tensor]:
    g = torch.Generator().manual_seed(0)
    shapes = {"encoder.weight": (10, 6), "decoder.weight": (6, 10), "latent_bias": (10,), "pre_bias": (6,)}
    return {name: torch.randn(*shape, generator=g) for name, shape in shapes.items()}


def saved(path: Path, content: Any) -> Path:
    torch.save(content, path)
    return path


def test_codes_and_reconstructions_are_those_of_the_modules_it_was_saved_from(tmp_path: Path) -> None:
    state = tensors() | {"neuron_activity": torch.zeros(10, dtype=torch.long)}
    coder = read_published(saved(tmp_path / "sae.pt", {"model_state_dict": state, "model_config": CONFIG}))
    encoder, decoder = nn.Linear(6, 10, bias=False), nn.Linear(10, 6, bias=False)
    encoder.weight.data, decoder.weight.data = state["encoder.weight"], state["decoder.weight"]
    with torch.no_grad():
        latents = encoder(X - state["pre_bias"]) + state["latent_bias"]
        least = latents.topk(3).values[:, -1:]
        codes = latents.relu() * (latents >= least)
        torch.testing.assert_close(coder.encode(X), codes)
        torch.testing.assert_close(coder.decode(codes), decoder(codes) + state["pre_bias"])
        mean, sd = torch.randn(6), torch.rand(6) + 0.5
        folded = standardised(coder, mean, sd)
        torch.testing.assert_close(folded.encode(X * sd + mean), codes, atol=1e-4, rtol=1e-4)


def test_the_number_of_active_latents_comes_from_configuration_name_or_caller_and_all_agree(tmp_path: Path) -> None:
    bare = saved(tmp_path / "sae_layer9.pt", tensors())
    assert read_published(saved(tmp_path / "sae_k4.pt", tensors())).k == 4
    assert read_published(bare, k=2).k == 2
    save_file(tensors(), tmp_path / "sae.safetensors")
    assert read_published(tmp_path / "sae.safetensors", k=2).name == read_published(bare, k=2).name
    with pytest.raises(AuditError, match="nothing says how many"):
        read_published(bare)
    with pytest.raises(AuditError, match="k is 3 by the file, and 5 was given"):
        read_published(saved(tmp_path / "c.pt", {"model_state_dict": tensors(), "config": CONFIG}), k=5)


class Calling:
    """What runs when it is unpickled."""

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return print, ("ran",)


def test_a_pickle_that_runs_code_is_refused_and_does_not_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = saved(tmp_path / "sae_k4.pt", tensors() | {"extra": Calling()})
    (tmp_path / "plain_k4.pt").write_bytes(pickle.dumps(Calling()))
    for each in (path, tmp_path / "plain_k4.pt"):
        with pytest.raises(AuditError, match="pickle") as refused:
            read_published(each)
        assert refused.value.code == 2 and str(each) in refused.value.what
    assert "ran" not in capsys.readouterr().out


WRONG: list[tuple[dict[str, Any], dict[str, Any], str]] = [
    ({"encoder.weight": None}, {}, "'encoder.weight' is missing"), ({"pre_bias": None}, {}, "'pre_bias' is missing"),
    ({"decoder.weight": torch.ones(10, 6)}, {}, r"'decoder.weight' is \[10, 6\]"),
    ({"latent_bias": torch.full((10,), float("inf"))}, {}, "infinity"),
    ({"latent_bias": torch.ones(10, dtype=torch.long)}, {}, "floating-point"),
    ({"skip.weight": torch.ones(6, 6)}, {}, "'skip.weight' has no place"),
    ({}, {"activation": "batch_topk"}, "batch_topk"), ({}, {"hidden_dim": 11}, "hidden_dim = 11"),
    ({}, {"input_dim": 7}, "input_dim = 7"), ({}, {"k": 0}, "k = 0"), ({}, {"k": 11}, "k = 11"),
    ({}, {"k": 2.0}, "k = 2.0"),
]  # fmt: skip


@pytest.mark.parametrize(("state", "config", "word"), WRONG)
def test_what_does_not_fit_is_refused_with_what_and_where(
    state: dict[str, Any], config: dict[str, Any], word: str, tmp_path: Path
) -> None:
    content = {name: tensor for name, tensor in (tensors() | state).items() if tensor is not None}
    path = saved(tmp_path / "sae.pt", {"model_state_dict": content, "config": CONFIG | config})
    with pytest.raises(AuditError, match=word) as refused:
        read_published(path)
    assert refused.value.code == 3 and str(path) in refused.value.what


@pytest.mark.parametrize("size", [0, 1, 50, 400, 1200])
def test_a_truncated_file_is_refused(size: int, tmp_path: Path) -> None:
    path = saved(tmp_path / "sae_k4.pt", tensors())
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(AuditError) as refused:
        read_published(path)
    assert str(path) in refused.value.what


def test_what_is_no_state_dict_is_refused(tmp_path: Path) -> None:
    with pytest.raises(AuditError, match="holds a list"):
        read_published(saved(tmp_path / "a.pt", [1, 2]))
    with pytest.raises(AuditError, match="no such file"):
        read_published(tmp_path / "b.pt")
