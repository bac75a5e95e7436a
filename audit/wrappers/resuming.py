"""Can a model start from the state of a block? Asked of it, on a few tokens, when it is put behind a backend."""

from torch import Tensor

from audit.schema import AuditError, Site, as_audit_error
from audit.wrappers.interface import Batch, Resume, Tap, Wrapper
from audit.wrappers.tracing import close


def starts_within(wrapper: Wrapper, batch: Batch) -> bool:
    """Does the model say the same when its blocks up to the middle one are left out for the state that this one gave?

    Not where a block hands on more than its state, or where one above reads what another below kept.
    """
    middle = (wrapper.n_blocks - 1) // 2
    given, plain, again = list[Tensor](), list[Tensor](), list[Tensor]()

    def keeping(part: Site, into: list[Tensor]) -> Tap:
        return Tap(part, lambda state: into.append(state.clone()))

    final = Site(part="final_in")
    wrapper.run_blocks(batch, [keeping(Site(part="resid_out", block=middle), given), keeping(final, plain)], None, None)
    try:
        with as_audit_error("it misses what a block gives beside its state", "run the blocks below too"):
            wrapper.run_blocks(batch, [keeping(final, again)], Resume(middle, given[0]), None)
    except AuditError:
        return False
    return bool(plain and again) and close(plain[0], again[0])
