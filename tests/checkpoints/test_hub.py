"""What of a hub repository is fetched and found again: the needed files of one folder, by a full commit, and no others.

There is no hub here: listing, downloading and asking for a branch are replaced where huggingface_hub would go to the
network, calls are held to its real signatures, and everything offline is the library's own code on a cache folder.
"""

import inspect
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import huggingface_hub
import pytest
from huggingface_hub import _snapshot_download as downloads
from huggingface_hub._snapshot_download import snapshot_download as library_download
from huggingface_hub.utils import filter_repo_objects
from safetensors.torch import load_file, save_file

from audit import checkpoints
from audit.schema import AuditError, Checkpoint, Source
from tests import toy

COMMIT = "0123456789abcdef0123456789abcdef01234567"
HEAD = "f" * 40
MODEL = ["config.json", "generation_config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"]


class Hub:
    """A repository owner/name whose files lie in ``published``, and a cache folder of the library's own layout."""

    def __init__(self, at: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.published, self.repo = at / "published", at / "cache" / "models--owner--name"
        self.snapshot, self.asked = self.repo / "snapshots" / COMMIT, list[str]()
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(at / "cache"))
        monkeypatch.setattr(huggingface_hub, "snapshot_download", self._download)
        for name, ours in (("list_repo_files", self._list), ("model_info", self._info)):
            real = getattr(huggingface_hub.HfApi, name)
            monkeypatch.setattr(huggingface_hub.HfApi, name, self._held(real, ours))

    def _held(self, real: Callable[..., object], ours: Callable[..., object]) -> Callable[..., object]:
        def called(api: object, *args: object, **kwargs: object) -> object:
            inspect.signature(real).bind(api, *args, **kwargs)
            return ours(*args, **kwargs)

        return called

    @property
    def files(self) -> list[str]:
        return sorted(p.relative_to(self.published).as_posix() for p in self.published.rglob("*") if p.is_file())

    @property
    def fetched(self) -> list[str]:
        return sorted(p.relative_to(self.snapshot).as_posix() for p in self.snapshot.rglob("*") if p.is_file())

    def _list(self, repo_id: str, *, revision: str) -> list[str]:
        assert (repo_id, revision) == ("owner/name", COMMIT)
        self.asked.append("files")
        return self.files

    def _info(self, repo_id: str, *, revision: str) -> object:
        self.asked.append(revision)
        if repo_id != "owner/name":
            raise OSError("no such repository")
        return SimpleNamespace(sha=HEAD)

    def _download(self, *args: object, **kwargs: object) -> str:
        """As the library: offline its own code runs; online what matches is copied and the listing is kept."""
        inspect.signature(library_download).bind(*args, **kwargs)
        if kwargs["local_files_only"]:
            return str(library_download(*args, **kwargs))  # type: ignore[arg-type]
        assert args == ("owner/name",) and kwargs["revision"] == COMMIT
        for name in filter_repo_objects(self.files, allow_patterns=kwargs["allow_patterns"]):  # type: ignore[arg-type]
            (self.snapshot / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(self.published / name, self.snapshot / name)
        entry = downloads.TreeCacheEntry(size=1, blob_id="0" * 40, lfs_sha256=None, lfs_size=None, xet_hash=None)
        downloads.write_tree_cache(str(self.repo), COMMIT, dict.fromkeys(self.files, entry))
        return str(self.snapshot)

    def publish(self, place: str, folder: Path) -> Path:
        shutil.copytree(folder, self.published / place, dirs_exist_ok=True)
        return self.published / place

    def put(self, *names: str, text: str = "x") -> None:
        for name in names:
            (self.published / name).parent.mkdir(parents=True, exist_ok=True)
            (self.published / name).write_text(text)


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Hub:
    return Hub(tmp_path, monkeypatch)


def resolved(online: bool = False, path: str = "owner/name", commit: str | None = COMMIT, **fields: str) -> Checkpoint:
    return checkpoints.resolve(Source(path=path, commit=commit, **fields), Path("/"), online)


def shard(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    names, files = sorted(weights), ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors")
    parts = {file: names[n::2] for n, file in enumerate(files)}
    for file, mine in parts.items():
        save_file({name: weights[name] for name in mine}, folder / file)
    index = {"weight_map": {name: file for file, mine in parts.items() for name in mine}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    (folder / "model.safetensors").unlink()


DUPLICATES = (
    "original/consolidated.00.pth", "original/model.safetensors", "consolidated.safetensors", "metal/model.bin",
    "onnx/model.onnx", "model.fp16.safetensors", "pytorch_model.bin", "training_args.bin", "optimizer.pt",
    "flax.msgpack", "tf_model.h5", "modeling_mine.py", "trainer_state.json", "events.out.tfevents", "images/a.png",
    "model.Q4_0.gguf",
    "checkpoint-20/model.safetensors", "checkpoint-20/config.json", "eval/results.json", "vocabulary.txt",
)  # fmt: skip


@pytest.mark.parametrize("sharded", [False, True])
def test_only_what_is_hashed_and_opened_is_fetched_and_found_again_offline(hub: Hub, sharded: bool) -> None:
    folder = hub.publish("", toy.folder("llama"))
    wanted = MODEL
    if sharded:
        shard(folder)
        hub.put("model-00001-of-00003.safetensors", "model-00003-of-00003.safetensors")  # an earlier save
        wanted = [name for name in MODEL if name != "model.safetensors"]
        wanted += [f"model-0000{n}-of-00002.safetensors" for n in (1, 2)] + ["model.safetensors.index.json"]
    else:
        hub.put("model.safetensors.index.json", text='{"weight_map": {"a": "model-00001-of-00001.safetensors"}}')
        wanted = [*MODEL, "model.safetensors.index.json"]
    hub.put(*DUPLICATES)
    hub.put("README.md", "additional_chat_templates/tool.jinja")
    ckpt = resolved(online=True)
    assert hub.fetched == sorted([*wanted, "README.md", "additional_chat_templates/tool.jinja"])
    assert resolved() == ckpt and ckpt.source == f"owner/name@{COMMIT}" and hub.asked == ["files"]
    assert checkpoints.folder_of(ckpt) == hub.snapshot
    checkpoints.verify(ckpt)


def test_a_file_that_the_config_names_is_fetched_in_place_of_the_usual_one(hub: Hub) -> None:
    folder = hub.publish("", toy.folder("llama"))
    shutil.copy(folder / "model.safetensors", folder / "other[1].safetensors")
    document = json.loads((folder / "config.json").read_text()) | {"transformers_weights": "other[1].safetensors"}
    (folder / "config.json").write_text(json.dumps(document))
    hub.put("other1.safetensors")
    resolved(online=True)
    assert [name for name in hub.fetched if name.endswith(".safetensors")] == ["other[1].safetensors"]
    assert resolved().key


def test_of_a_repository_with_sub_folders_one_is_fetched_and_named_for_good(hub: Hub) -> None:
    hub.publish("runs/checkpoint-60", toy.folder("llama"))
    hub.publish("runs/checkpoint-20", toy.folder("llama", 1))
    hub.put("runs/checkpoint-60/optimizer.pt", "runs/checkpoint-60/sub/model.safetensors", "config.yaml")
    ckpt = resolved(online=True, subfolder="runs/checkpoint-60")
    assert hub.fetched == [f"runs/checkpoint-60/{name}" for name in MODEL]
    assert ckpt.source == f"owner/name@{COMMIT}/runs/checkpoint-60"
    assert ckpt.fingerprint == toy.checkpoint("llama").fingerprint
    assert checkpoints.folder_of(ckpt) == hub.snapshot / "runs" / "checkpoint-60"
    assert resolved(subfolder="runs/checkpoint-60/") == resolved(path=ckpt.source, commit=None) == ckpt
    with pytest.raises(AuditError, match=r"checkpoint-20: not in the local cache"):
        resolved(subfolder="runs/checkpoint-20")
    assert resolved(online=True, subfolder="runs/checkpoint-20").key == toy.checkpoint("llama", 1).key


def test_of_a_repository_of_which_the_config_is_enough_no_weights_are_fetched(hub: Hub) -> None:
    folder = hub.publish("", toy.folder("llama"))
    blocks = json.loads((folder / "config.json").read_text())["num_hidden_layers"]
    ckpt = checkpoints.resolve_config(Source(path="owner/name", commit=COMMIT), Path("/"), online=True)
    assert "config.json" in hub.fetched and not any(name.endswith(".safetensors") for name in hub.fetched)
    assert checkpoints.of_config_alone(ckpt) and checkpoints.model_config(ckpt).blocks == blocks
    assert checkpoints.resolve_config(Source(path="owner/name", commit=COMMIT), Path("/")) == ckpt
    with pytest.raises(AuditError, match="not in the local cache"):
        checkpoints.resolve(Source(path="owner/name", commit=COMMIT), Path("/"))


@pytest.mark.parametrize("lost", ["model.safetensors", "config.json", "model-00002-of-00002.safetensors"])
def test_weights_that_were_fetched_in_part_are_not_taken_for_the_whole(hub: Hub, lost: str) -> None:
    folder = hub.publish("", toy.folder("llama"))
    if "-of-" in lost:
        shard(folder)
    resolved(online=True)
    (hub.snapshot / lost).unlink()
    with pytest.raises(AuditError) as caught:
        resolved()
    assert caught.value.code == 2
    assert resolved(online=True).fingerprint == checkpoints.fingerprint(folder).total


def test_a_repository_whose_models_lie_in_sub_folders_names_them(hub: Hub) -> None:
    for n in (5, 20, 100):
        hub.publish(f"checkpoint-{n}", toy.folder("llama"))
    with pytest.raises(AuditError, match=r"(?s)checkpoint-5, checkpoint-20, checkpoint-100.*checkpoint-100") as caught:
        resolved(online=True)
    assert caught.value.code == 2 and not any(name.endswith(".safetensors") for name in hub.fetched)


def test_a_repository_of_pickles_is_refused_before_any_is_fetched(hub: Hub) -> None:
    folder = hub.publish("", toy.folder("llama"))
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(AuditError, match=r"only as pickle \(pytorch_model\.bin\).*nothing of it was fetched") as caught:
        resolved(online=True)
    assert caught.value.code == 2 and "pytorch_model.bin" not in hub.fetched


def test_of_several_gguf_files_one_has_to_be_named(hub: Hub) -> None:
    from audit.checkpoints.hub_files import weights_among

    names = ["model.Q4_K.gguf", "model.Q8_0.gguf", "README.md"]
    with pytest.raises(AuditError, match=r"(?s)2 \.gguf files.*say which"):
        weights_among(names, "", hub.published)
    assert weights_among(names[:1], "", hub.published) == names[:1]
    assert weights_among(names, names[1], hub.published) == [names[1]]


# ---- adapters -----------------------------------------------------------------------------------------------------
def test_an_adapter_lies_in_a_repository_or_a_sub_folder_of_one(hub: Hub, tmp_path: Path) -> None:
    from peft import LoraConfig, get_peft_model

    peft = get_peft_model(toy.model("llama"), LoraConfig(r=2, target_modules=["q_proj"], init_lora_weights=False))
    peft.save_pretrained(tmp_path / "adapter")
    hub.publish("checkpoint-60", tmp_path / "adapter")
    hub.put("checkpoint-60/optimizer.pt", "checkpoint-60/adapter_model.bin")
    source = Source(path=str(toy.folder("llama")), adapter=f"owner/name@{COMMIT}/checkpoint-60")
    ckpt = checkpoints.resolve(source, Path("/"), online=True)
    expected = {f"checkpoint-60/{name}" for name in ("adapter_config.json", "adapter_model.safetensors", "README.md")}
    assert set(hub.fetched) == expected & set(hub.files) and ckpt.adapter == source.adapter
    checkpoints.verify(ckpt)
    same = checkpoints.resolve(source.model_copy(update={"adapter": str(tmp_path / "adapter")}), Path("/"))
    assert same.key == ckpt.key


# ---- branches -----------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("given", ["commit", "path", "nothing"])
def test_a_branch_stays_refused_and_its_commit_is_said_where_it_can_be_asked(hub: Hub, given: str) -> None:
    branch = "main" if given == "nothing" else "step100"
    path = {"commit": "owner/name", "path": f"owner/name@{branch}", "nothing": "owner/name"}[given]
    for online in (False, True):
        with pytest.raises(AuditError, match="commit") as caught:
            resolved(online=online, path=path, commit=branch if given == "commit" else None)
        assert caught.value.code == 2
        assert (f"{branch} is at commit {HEAD} now" in caught.value.do) is online
    assert hub.asked == [branch]


def test_a_branch_of_a_repository_that_is_not_there_is_refused_as_before(hub: Hub) -> None:
    with pytest.raises(AuditError, match="not a commit") as caught:
        resolved(online=True, path="owner/other", commit="main")
    assert "now" not in caught.value.do


def test_a_path_that_goes_below_a_hub_id_is_told_how_to_say_so() -> None:
    with pytest.raises(AuditError, match='path = "owner/name" and subfolder = "runs/last"'):
        resolved(path="owner/name/runs/last")


# ---- local folders ------------------------------------------------------------------------------------------------
def test_the_home_of_a_user_who_is_not_here_is_no_folder() -> None:
    with pytest.raises(AuditError, match="no such folder") as caught:
        checkpoints.resolve(Source(path="~nobody-here/model"), Path("/"))
    assert caught.value.code == 2


def test_a_sub_folder_of_a_local_folder_is_the_checkpoint(tmp_path: Path) -> None:
    shutil.copytree(toy.folder("llama"), tmp_path / "out" / "checkpoint-60")
    ckpt = checkpoints.resolve(Source(path="out", subfolder="checkpoint-60"), tmp_path)
    assert ckpt == checkpoints.resolve(Source(path="out/checkpoint-60"), tmp_path)
    assert ckpt.source == str(tmp_path / "out" / "checkpoint-60")


@pytest.mark.parametrize(
    ("subfolder", "words"),
    [
        (None, r"no model in it, but in sub-folders \(checkpoint-5, checkpoint-60\).*subfolder = .checkpoint-60"),
        ("checkpoint-7", "no sub-folder 'checkpoint-7'.*checkpoint-5, checkpoint-60"),
        ("../out/checkpoint-5", "no folder below it"), ("/etc", "no folder below it"), (".", "no folder below it"),
    ],
)  # fmt: skip
def test_a_sub_folder_that_is_none_is_refused_with_those_there_are(
    tmp_path: Path, subfolder: str | None, words: str
) -> None:
    for step in (5, 60):
        shutil.copytree(toy.folder("llama"), tmp_path / "out" / f"checkpoint-{step}")
    with pytest.raises(AuditError, match=rf"(?s){words}") as caught:
        checkpoints.resolve(Source(path="out", subfolder=subfolder), tmp_path)
    assert caught.value.code == 2


def test_the_sub_folder_of_a_source_is_left_out_of_hashes_where_it_is_not_said() -> None:
    assert "subfolder" not in Source(path="a").model_dump()
    assert Source(path="a", subfolder="b").model_dump()["subfolder"] == "b"
