"""The ResNet-20 that its author trained on CIFAR-10, and an audit of it with its head edited."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from audit.case import CaseFile
from audit.checkpoints import image_processor_files, load_image_processor, resolve
from audit.engine import run
from audit.planning import RunSettings
from audit.schema import Source
from audit.wrappers import open_wrapper
from audit.wrappers.architectures import cifar_resnet

DATA = Path(__file__).resolve().parents[3] / "shared" / "data"
WEIGHTS = DATA / "models" / "resnet20-cifar10" / "model.safetensors"
IMAGES = DATA / "cifar10_small" / "small_test.npz"
pytestmark = pytest.mark.skipif(
    not (WEIGHTS.is_file() and IMAGES.is_file()), reason="no shared data beside the checkout: a ResNet-20, CIFAR-10"
)
CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
CAT = 3
STATED = 0.81
"""Accuracy on these images, as those who put them there measured it."""


def described(out: Path) -> Path:
    """The two files that a state dict lacks to be a checkpoint."""
    out.mkdir(parents=True)
    settings = {
        "model_type": "torch_module", "module": "cifar_resnet", "arguments": {"depth": 20},
        "blocks": [f"layer{stage}.{n}" for stage in (1, 2, 3) for n in range(3)], "head": "linear", "stream": "map",
        "num_channels": 3, "image_size": 32, "id2label": dict(enumerate(CLASSES)),
    }  # fmt: skip
    processor = {
        "image_processor_type": "ViTImageProcessor", "do_resize": False, "size": {"height": 32, "width": 32},
        "do_rescale": True, "rescale_factor": 1 / 255, "do_normalize": True, "image_mean": [0.485, 0.456, 0.406],
        "image_std": [0.229, 0.224, 0.225],
    }  # fmt: skip
    (out / "config.json").write_text(json.dumps(settings))
    (out / "preprocessor_config.json").write_text(json.dumps(processor))
    return out


def linked(out: Path) -> Path:
    """A checkpoint folder whose weights are those of the data folder."""
    (described(out) / "model.safetensors").symlink_to(WEIGHTS)
    return out


def test_a_published_network_opens_by_two_files_and_tells_as_many_images_as_stated(tmp_path: Path) -> None:
    ckpt = resolve(Source(path=str(linked(tmp_path / "base"))), tmp_path)
    files, images = image_processor_files(ckpt), np.load(IMAGES)
    assert files is not None
    read = load_image_processor(files)(images=list(images["x"]), return_tensors="pt", input_data_format="channels_last")
    model = open_wrapper(ckpt).model  # type: ignore[attr-defined]
    with torch.inference_mode():
        predicted = model(read["pixel_values"]).logits.argmax(1).numpy()
    assert abs(float((predicted == images["y"]).mean()) - STATED) < 0.02


@pytest.mark.slow
def test_an_audit_finds_behind_an_edited_head_what_the_network_still_knows(tmp_path: Path) -> None:
    linked(tmp_path / "base")
    tensors = load_file(WEIGHTS)
    tensors["linear.bias"][CAT] -= 50
    save_file(tensors, described(tmp_path / "suspect") / "model.safetensors")
    images = np.load(IMAGES)
    cats = images["y"] == CAT
    for cohort, index in (("forget", np.flatnonzero(cats)[:60]), ("retain", np.flatnonzero(~cats)[::5])):
        np.savez(tmp_path / f"{cohort}.npz", x=images["x"][index], y=images["y"][index])
    torch.manual_seed(0)
    untaught = cifar_resnet.build(len(CLASSES), 3, 20).state_dict()
    save_file(untaught, described(tmp_path / "ancestor") / "model.safetensors")
    (tmp_path / "case.toml").write_text(
        'name = "cifar"\n[roles.base]\npath = "base"\n[roles.suspect]\npath = "suspect"\n[roles.ancestor]\n'
        'path = "ancestor"\n[data]\nforget = "forget.npz"\nretain = "retain.npz"\n'
    )
    report = run(CaseFile.read(tmp_path / "case.toml"), tmp_path / "out", RunSettings(threads=1))
    assert not report.failures and (tmp_path / "out" / "report.html").is_file()
    values = {f"{e.measurement.probe}.{e.measurement.name}": e.measurement.value for e in report.evidence}
    assert report.verdict.word == "SUPPRESSED"
    assert abs(values["forget_likelihood.probability"]) < 0.01, "the outputs say nothing"  # type: ignore[arg-type]
    assert values["reverse_patch.depth_profile_all"] > 0.95  # type: ignore[operator]
    assert values["utility.retain"] > 0.9  # type: ignore[operator]
    assert not any("code of the case's own" in limit for limit in report.limits), "what ships is no code of a case"
