"""By which test each row of the study is held, and what is held elsewhere."""

from typing import Final

TESTS: Final = {
    "a unit changed between a kill and the resume": "`tests/engine/test_resume.py`, `tests/runs/test_custody.py`",
    "a verdict word changed in a finished run": "`tests/review/test_tampering.py`",
    "tampering, hashes left alone": "`tests/review/test_tampering.py`",
    "tampering, hashes made anew": "`tests/review/test_tampering.py`",
    "a tokenizer that the library refuses": "`tests/engine/test_library_faults.py`",
    "a path that is none": "`tests/schema/test_case_bounds.py`",
    "a seed out of bounds": "`tests/schema/test_case_bounds.py`",
    "a reference whose activations overflow": "`tests/probing/test_role_audit.py`",
    "a named pipe as data": "`tests/storage/test_file_kinds.py`",
    "a float tensor stored as integers": "`tests/probing/test_role_audit.py`",
    "a zeroed tensor": "`tests/probing/test_role_audit.py`",
    "a refusal quotes text or control characters": "`tests/cli/test_streams.py`, `tests/cli/test_words_of_images.py`",
    "the dashboard and foreign names": "`tests/dashboards/test_same_origin.py`, `test_requests_recorded.py`",
    "_attn_implementation in config.json": "`tests/checkpoints/test_code_beside.py`, "
                                           "`tests/wrappers/test_arithmetic.py`",
    "a wish for code that is ignored without a word": "`tests/checkpoints/test_code_beside.py`",
}  # fmt: skip
"""Row -> the tests that fail where it opens again."""
HELD: Final = (
    "",
    "Changes of the code that no test noticed are counted in `tests/mutants`, not here.",
)
