"""What a library raises ends as a sentence; what we raise stays as it is."""

import pytest

from audit.schema import AuditError, ExitCode, as_audit_error


def test_what_a_library_raises_becomes_an_audit_error_with_the_original_in_it() -> None:
    with (
        pytest.raises(AuditError) as raised,
        as_audit_error("model: cannot be opened", "save it again", ExitCode.INTEGRITY),
    ):
        raise RuntimeError("size mismatch\n  for layer 3")
    assert raised.value.what == "model: cannot be opened: RuntimeError: size mismatch for layer 3"
    assert (raised.value.do, raised.value.code) == ("save it again", 3)
    assert isinstance(raised.value.__cause__, RuntimeError)


def test_an_audit_error_and_an_interrupt_pass_unchanged() -> None:
    ours = AuditError("the data are empty", "put items into them", ExitCode.UNDECIDED)
    with pytest.raises(AuditError) as raised, as_audit_error("outer", "nothing"):
        raise ours
    assert raised.value is ours
    with pytest.raises(KeyboardInterrupt), as_audit_error("outer", "nothing"):
        raise KeyboardInterrupt


def test_a_long_original_is_cut() -> None:
    with pytest.raises(AuditError) as raised, as_audit_error("outer", "nothing"):
        raise ValueError("x" * 5000)
    assert len(raised.value.what) < 450
    assert raised.value.what.endswith(" ...")


def test_a_panic_of_a_library_in_rust_becomes_an_audit_error_though_it_is_no_exception() -> None:
    panic = type("PanicException", (BaseException,), {"__module__": "pyo3_runtime"})
    with (
        pytest.raises(AuditError, match="PanicException: no entry found") as raised,
        as_audit_error("outer", "nothing"),
    ):
        raise panic("no entry found")
    assert isinstance(raised.value.__cause__, panic)
    with pytest.raises(SystemExit), as_audit_error("outer", "nothing"):
        raise SystemExit(1)
