"""Keys of passes and checkpoints by literal hashes: whoever changes how a write is named loses every cache there is."""

import pytest
import torch
from torch import Tensor

from audit.bench import Edges, LowRank, Replace, Start, Write
from audit.bench.cache_keys import PassNames, Settings, read_names
from audit.bench.results import Pass
from audit.bench.writes.clamp import Clamp
from audit.bench.writes.features import Features
from audit.bench.writes.logit_bias import LogitBias
from audit.bench.writes.prefix import Prefix
from audit.bench.writes.scale import Scale
from audit.case import Rows
from audit.schema import Checkpoint, EditRecord, Read, Site

SITE = Site(part="resid_out", block=1)
LOGPROB = Read(site=Site(part="logits"), at="answer", reduce="logprob")
OTHER = Checkpoint(source="/models/other", family="llama", fingerprint="1" * 64)


def counted(*shape: int) -> Tensor:
    return torch.arange(float(torch.Size(shape).numel())).view(shape)


def rows() -> Rows:
    ids = torch.tensor([[1, 5, 6, 7], [1, 8, 9, 0]])
    key = torch.tensor([[False, False, False, True], [False, False, True, False]])
    spans = torch.tensor([[2, 4], [1, 3]])
    return Rows(ids, ids > 0, spans, key, ("a", "b"), ("a", "b"), template_hash="template")


class Nothing:
    def encode(self, x: Tensor) -> Tensor:
        return x

    def decode(self, feature_acts: Tensor) -> Tensor:
        return feature_acts


def features(name: str | None) -> Features:
    return Features(SITE, Nothing(), torch.tensor([0, 2]), 0.5, name)


HEAD = Site(part="z", block=0, head=2)
RUN = Pass(rows(), {Read(site=Site(part="embed"), at="all"): counted(2, 4, 3), Read(site=SITE, at="all"): counted(2)})
LOW_RANK = LowRank(SITE, counted(2, 3), 1 + counted(2, 3), counted(3))
WRITES: dict[str, tuple[tuple[Write, ...], Start | None]] = {
    "nothing": ((), None),
    "start_model": ((), Start(SITE, OTHER)),
    "start_tensor": ((), Start(SITE, counted(2, 4, 3))),
    "replace_model": ((Replace(SITE, OTHER),), None),
    "replace_tensor": ((Replace(HEAD, counted(2, 3), "last"),), None),
    "clamp_model": ((Clamp(SITE, torch.tensor([[1, -1], [0, 2]]), OTHER),), None),
    "clamp_tensor": ((Clamp(SITE, torch.tensor([[1, -1], [0, 2]]), counted(2, 2), "last"),), None),
    "low_rank": ((LOW_RANK,), None),
    "low_rank_rows": ((LowRank(SITE, LOW_RANK.u, LOW_RANK.v, LOW_RANK.b, torch.tensor([True, False])),), None),
    "scale": ((Scale(SITE, torch.tensor([1, 3]), counted(2)),), None),
    "scale_per_row": ((Scale(SITE, torch.tensor([1, 3]), counted(2, 2), per_row=True),), None),
    "prefix": ((Prefix(counted(2, 1, 3)),), None),
    "prefix_at": ((Prefix(counted(2, 1, 3), torch.tensor([1, 2])),), None),
    "logit_bias": ((LogitBias(counted(5)),), None),
    "edges": ((Edges(torch.eye(3, dtype=torch.bool), RUN),), None),
    "features": ((features("dictionary"),), None),
    "several": ((LOW_RANK, LogitBias(counted(5)), Replace(SITE, OTHER, "all")), Start(SITE, OTHER)),
}
KEYS = {
    "nothing": "5a5deb52ad8edfb65f3fbe27e669f8e22df6a1853ee92641c06d167a2a2f3733",
    "start_model": "d8e4fe729d324c0128fcd627c6ef27ee4ebed1ec959e4d125ef4bb70cc94a520",
    "start_tensor": "f33432886c2db0fbb39b358135cae779816fc5d411ba5227a8d37cf961dd490e",
    "replace_model": "c3f4ea62437b6cce5f9d2d3e06748f9cf878cf55d529cbc5c10ceff4602535a0",
    "replace_tensor": "a3d8e4637d216ea831849f865be5b113ddacee45dd02d40b7fc38f26671aeaaf",
    "clamp_model": "f3cf8e7f507fdb08383e5a309597e6e463909b2869cdc64605d4b4d90d17ff90",
    "clamp_tensor": "c7ae5832746f083b5524265cb626bfe3ce53175535e8d9dc12b7a17585c89b13",
    "low_rank": "154f0bb7775c8c2c70fccb1c70dafb93a93e9f28ffd6bc9504f484b7c845a58e",
    "low_rank_rows": "0f5de9f16d2fde72a49f2878030925dbf12d85bd00d0194625002776a6c3c393",
    "scale": "5c7f0152e0002ebb2d8c2b842d84021d642899205cee7beff7498a5285df44ab",
    "scale_per_row": "85f3bb5e4856dce0da97a985e4253fd6449251b878eab38b30e5042dddf99eab",
    "prefix": "344cc08912150efcd3319e09bd1d49bca8ca91bbc3d968d6fa59b37e898083a9",
    "prefix_at": "281dbecab08d1f7ed269589b1502ad637a78c75b4ac90fe13d711f2e7aebedde",
    "logit_bias": "a5902ace08c3fb5d194d6cd8f725cdd4e79fa7ecf332ee7a84c83b767fc07bca",
    "edges": "1ff450d45d9fe46e384133bb205a6f9f230106d662180a0945a9b2cd0afe8671",
    "features": "2764fc2c652a8a148b3993d96a92fdf1d4d9b91fec1e9aea69c66aac909757c8",
    "several": "618352753696283ff70641ed344bedbfd1755c2e95c458713e18d44a15a7d930",
}


def key_of(name: str, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr(torch, "__version__", "2.0.0")
    writes, start = WRITES[name]
    settings = Settings("native", "cpu", "float32", "default")
    names = read_names(settings, PassNames("0" * 64, rows(), writes, start), (LOGPROB,))
    assert names is not None
    return names[LOGPROB]


@pytest.mark.parametrize("name", WRITES)
def test_pass_with_a_write_keeps_its_key(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert key_of(name, monkeypatch) == KEYS[name]


def test_keys_of_different_writes_differ() -> None:
    assert len(set(KEYS.values())) == len(KEYS) == len(WRITES)


def test_pass_with_an_unnamed_dictionary_has_no_key() -> None:
    settings = Settings("native", "cpu", "float32", "default")
    what = PassNames("0" * 64, rows(), (LOW_RANK, features(None)), None)
    assert read_names(settings, what, (LOGPROB,)) is None


CHECKPOINTS = {
    "weights": "d68577ee6e6f24f42c239e0f49b343181109fca75ce3a7816be4f02f6819e7f1",
    "logit_bias": "a3272be3d02cfcb70335f82b14a08b46e006e7778c6068fb8e7e1456016b51f3",
    "low_rank": "eb7e6cb6fd028f6e00956fac0249005b58758a52b8dcaad9d5555369bd4420ca",
}


@pytest.mark.parametrize("plays", CHECKPOINTS)
def test_edited_checkpoint_keeps_its_key(plays: str) -> None:
    document = {"name": "edit", "plays": plays, "settings": {"lr": 0.1, "steps": 3}, "delta_sha256": "2" * 64}
    record = EditRecord.model_validate(document)
    ckpt = Checkpoint(source="/models/a", family="llama", fingerprint="3" * 64, edits=(record,), edits_from="/edits")
    assert ckpt.key == CHECKPOINTS[plays]
