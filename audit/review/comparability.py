"""Whether two reports answer the same questions. Apart from how they are compared, which takes numpy and scipy."""

from audit.schema import Report


def refusal(a: Report, b: Report) -> str:
    """Why two reports cannot be compared, or an empty string: the same questions must be asked of the same items."""
    if a.plan.fingerprints.get("base") != b.plan.fingerprints.get("base"):
        return "their bases are different models, so their effects are on different scales"
    if a.plan.data_sha256.get("forget") != b.plan.data_sha256.get("forget"):
        return "their forget sets are different files"
    mine, other = ((d.split_seed, d.group, d.group_rows, d.fields) for d in (a.plan.case.data, b.plan.case.data))
    if mine != other:
        return "they split the items into groups for fitting and for auditing in different ways"
    return ""
