"""What is mutated, room by room, and the tests that belong to it."""

from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]


class Room(NamedTuple):
    """Files, or folders of files, and the test files or folders that answer for them."""

    sources: tuple[str, ...]
    tests: tuple[str, ...]

    def paths(self, root: Path) -> list[str]:
        """Its files, relative to the root."""
        found = [path for name in self.sources for path in ((root / name).glob("*.py") if (root / name).is_dir()
                 else [root / name])]  # fmt: skip
        return sorted(str(path.relative_to(root)) for path in found if path.name != "__init__.py")


_CHECKS = ("code_beside", "config", "degenerate", "edited", "exact_dtype", "fingerprints", "own_code", "quantisation",
           "shared_vocabulary", "tokenizers")  # fmt: skip

ROOMS = {
    "stats": Room(("audit/stats",), ("tests/stats",)),
    "judging": Room(("audit/judging",), ("tests/judging",)),
    "calibration": Room(("audit/calibration",), ("tests/calibration", "tests/pools/test_pool_file.py")),
    "planning": Room(("audit/planning",), ("tests/planning",)),
    "runs": Room(("audit/runs",), ("tests/runs", "tests/review")),
    "load checks": Room(
        ("audit/wrappers/load_checks.py", *(f"audit/checkpoints/{name}.py" for name in _CHECKS)),
        (
            "tests/checkpoints",
            "tests/wrappers/test_load_checks.py",
            "tests/wrappers/test_native.py",
            "tests/wrappers/test_native_image.py",
            "tests/wrappers/test_native_vlm.py",
            "tests/wrappers/test_torch_modules.py",
            "tests/case/test_shared_vocabulary.py",
            "tests/case/test_comparable_models.py",
            "tests/case/test_vocabulary.py",
            "tests/probing/test_role_audit.py",
        ),  # fmt: skip
    ),
}
