"""What the verdict says of every vision-language model of known truth: held out, and on worlds not fitted on.

``python -m studies.vision_language_zoo.study`` reads the stored calibrations and the scores (``scores/``,
``fresh_scores/``) and writes ``results.json`` and the tables in the README beside it, as the vision zoo's study
does; targets are parted by the kind of concept that a world's models are made to forget.
"""

from collections.abc import Sequence
from pathlib import Path

from audit.calibration import stored
from audit.zoo import FRESH_SCENE_WORLDS, TARGET_KINDS, draw_scenes, scenes_of_kind
from studies.vision_zoo.study import Zoo, publish

HERE = Path(__file__).parent


def kind_of_world(world: int, _model: str) -> str:
    """The kind of concept that is forgotten in a world."""
    return draw_scenes(world).dealt().kind


SCENES = Zoo(
    "python -m studies.vision_language_zoo.study", "vision_language", TARGET_KINDS, kind_of_world,
    scenes_of_kind("fake"), FRESH_SCENE_WORLDS,
)  # fmt: skip


def main(words: Sequence[str] | None = None) -> int:
    """Count the vision-language zoo."""
    return publish(SCENES, HERE, stored("image+text"), words)


if __name__ == "__main__":
    raise SystemExit(main())
