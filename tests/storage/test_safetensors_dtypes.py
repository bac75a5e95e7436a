"""The header reader knows every type of element that the format has, those of fewer than eight bits too."""

import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from audit.schema import AuditError
from audit.storage import safetensors_file

NAMES = {
    "F8_E8M0": torch.float8_e8m0fnu, "F8_E4M3": torch.float8_e4m3fn, "F8_E5M2": torch.float8_e5m2,
    "F8_E4M3FNUZ": torch.float8_e4m3fnuz, "F8_E5M2FNUZ": torch.float8_e5m2fnuz,
}  # fmt: skip


def by_hand(path: Path, dtype: str, shape: list[int], data: bytes) -> Path:
    header = json.dumps({"a": {"dtype": dtype, "shape": shape, "data_offsets": [0, len(data)]}}).encode()
    header += b" " * (-len(header) % 8)
    path.write_bytes(len(header).to_bytes(8, "little") + header + data)
    return path


@pytest.mark.parametrize("name", NAMES)
def test_small_floats_are_read_and_what_is_no_number_is_found(tmp_path: Path, name: str) -> None:
    path = tmp_path / "a.safetensors"
    every = torch.arange(256, dtype=torch.int16).to(torch.uint8).view(NAMES[name])
    wrong = ~torch.isfinite(every.float())
    for codes, found in ((every[~wrong], None), *((code.reshape(1), "a") for code in every[wrong])):
        save_file({"a": codes.clone()}, path)
        entry = safetensors_file.read_header(path).entries["a"]
        assert (entry.dtype, entry.end - entry.start) == (name, codes.numel())
        assert safetensors_file.first_not_finite(path) == found
    assert bool(wrong.any())


@pytest.mark.parametrize(("name", "size"), [("F4", 4), ("F6_E2M3", 6), ("F6_E3M2", 6)])
def test_elements_of_fewer_than_eight_bits_have_their_place(tmp_path: Path, name: str, size: int) -> None:
    path = by_hand(tmp_path / "a.safetensors", name, [2, 4], bytes(range(size)))
    assert safetensors_file.read_header(path).entries["a"].shape == (2, 4)
    assert safetensors_file.first_not_finite(path) is None
    if name == "F4":
        with safe_open(path, framework="pt") as file:
            assert file.get_tensor("a").view(torch.uint8).numel() == size
    with pytest.raises(AuditError, match="does not fit its shape"):
        safetensors_file.read_header(by_hand(tmp_path / "b.safetensors", name, [2, 4], bytes(size - 1)))
