"""The frozen world of images: the library reads the weights as they were trained, and who knows what is as planted."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from audit.calibration import Behaviour, InstalledBehaviours
from audit.calibration.behaviour import moved
from audit.probing import behaviour_of, frozen_images

IMAGE = [108, 52, 121, 246, 110, 86, 255, 200]
LABELS = [0, 2, 4, 2, 1, 2, 0, 2, 3, 2, 2, 0]
BIAS = [-0.013158215178, 0.034985660658, -0.015740658419, -0.001289042799, 0.013845067875]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    out = tmp_path_factory.mktemp("frozen")
    frozen_images.write_images(out)
    yield out


def pixels(cohort: str) -> tuple[Tensor, Tensor]:
    images, labels = frozen_images.cohorts()[cohort]
    return torch.from_numpy(images / 127.5 - 1), torch.from_numpy(labels)


@pytest.mark.thorough
def test_the_library_computes_what_was_trained(folder: Path) -> None:
    from transformers import AutoImageProcessor, ViTForImageClassification

    images, _ = frozen_images.cohorts()["forget"]
    processor = AutoImageProcessor.from_pretrained(folder / "base")
    given = processor(images=list(images[..., None]), return_tensors="pt", input_data_format="channels_last")
    torch.testing.assert_close(given["pixel_values"][:, 0].double(), pixels("forget")[0], atol=1e-6, rtol=0)
    for name, weights in frozen_images.trained_images().items():
        model = ViTForImageClassification.from_pretrained(folder / name)
        with torch.no_grad():
            logits = model(pixel_values=given["pixel_values"]).logits.double()
        torch.testing.assert_close(logits, frozen_images.logits_of(weights, pixels("forget")[0]), atol=1e-4, rtol=1e-4)


@pytest.mark.thorough
def test_base_knows_by_heart_what_the_null_never_saw_and_the_suspect_a_few_of_it() -> None:
    models = frozen_images.trained_images()

    def probability(name: str, cohort: str) -> np.ndarray:
        images, labels = pixels(cohort)
        return frozen_images.logits_of(models[name], images).softmax(-1).gather(-1, labels[:, None])[:, 0].numpy()

    left = frozen_images.LEFT
    assert probability("base", "forget").mean() > 0.9 and probability("null", "forget").mean() < 0.4
    assert probability("suspect", "forget")[-left:].mean() > 0.8 > 0.5 > probability("suspect", "forget")[:-left].mean()
    assert all(probability(name, "retain").mean() > 0.9 for name in models)
    assert all(probability(name, "holdout").mean() < 0.5 for name in models)


@pytest.mark.thorough
def test_every_number_of_the_world_is_drawn_from_raw_bits() -> None:
    """A version of numpy or torch that draws otherwise changes none of these."""
    images, labels = frozen_images.cohorts()["forget"]
    assert images[0, 0].tolist() == IMAGE and labels[:12].tolist() == LABELS
    first, again = frozen_images.trained_images(), frozen_images.trained_images()
    assert all(torch.equal(w, again[name][key]) for name, weights in first.items() for key, w in weights.items())
    assert first["base"]["classifier.bias"].dtype == torch.float64
    assert first["base"]["classifier.bias"].tolist() == pytest.approx(BIAS, abs=1e-9)


@pytest.mark.thorough
def test_a_behaviour_names_its_kind_and_is_another_than_that_of_texts() -> None:
    of_images = behaviour_of("probes", "utility", {}, "image_classifier")
    assert of_images.kind == "image_classifier" and of_images.values
    assert all(name.startswith("vit: ") for name in of_images.values)
    of_texts = of_images.model_copy(update={"kind": "causal_lm"})
    assert "another kind of model" in moved(of_texts, of_images)[0]


def test_kinds_keep_their_behaviours_apart_in_one_cache(tmp_path: Path) -> None:
    asked = list[str]()

    def of(kind: str) -> InstalledBehaviours:
        def compute(_package: str, probe: str, _settings: object) -> Behaviour:
            asked.append(kind)
            return Behaviour.model_validate({"probe": probe, "version": 1, "settings": {}, "kind": kind, "values": {}})

        return InstalledBehaviours("probes", compute, tmp_path, kind=kind)  # pyright: ignore[reportArgumentType]

    for kind in ("causal_lm", "image_classifier", "causal_lm", "image_classifier"):
        assert of(kind).now("utility", {}).behaviour.kind == kind
    assert asked == ["causal_lm", "image_classifier"]
