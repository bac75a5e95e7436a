"""Keys of passes and checkpoints by literal hashes: whoever changes how a write is named loses every cache there is."""

import pytest
import torch
from torch import Tensor

from audit.bench import Edges, LowRank, Replace, Start, Write
from audit.bench.cache_keys import PassNames, Settings, read_names
from audit.bench.results import Pass
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
    "nothing": "c0a3a24fd57f1254e2b0df1377a68a41619a346b71638d0a712cf1b55874c839",
    "start_model": "02177e2d905959a9288745cf9c5285e553004feaf766a5e7f5c0ffd337fdd5e3",
    "start_tensor": "cdd2219a5064af47fe7fa726e77b903375f1b384ffb76fe7e330215aa6e15299",
    "replace_model": "cd930600965b3278e2f26fd0a74f01fc97eac1c596827c5c22609aeb7a36b9a3",
    "replace_tensor": "ce5de56fdbe12e704d85cc8e74abe3975cccacf0b9a10e2fdfb4d1c6faac7e72",
    "low_rank": "9629fe1296eb38ce08deb1bb7f383a83ceb8ac7bb1534ffe5994442a8e290cf8",
    "low_rank_rows": "ab6164b925412585c905b985544e5cdd8566c49eb176f54b519821edfbf26c46",
    "scale": "6eb8226b78c485cac9ec760d98a435c24abb5201bfc7a7957692c939ba32e759",
    "scale_per_row": "b75ddae46c7e1fc24a9d33eeb0689a5c089ef8f75bd56e2f7749414ac34af4f2",
    "prefix": "3ad614e012e51cae69888d0d3d1f148844c9a919e3bd2447fc9719f40684c908",
    "prefix_at": "ae4148ff8cef26c8f817253cd4c5c6d4469f4d78960b3df1fd42e161ee41491a",
    "logit_bias": "a18aabd650c4778927a77c9cfabe1723bf0e6a613129ec426a468c95267541f3",
    "edges": "a7d8c05c2fb810b781fa4e51918ba963d308fd75a53f6fafb7d0434c3c30f90a",
    "features": "03b38efd34786994399894c53bd28dc6a3e9be0ec80bc4432d507e207471f7e5",
    "several": "44290e6c6ddf85d0cda773a8884f09629ebbd3269793083f8dd063b24bd38e6e",
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
