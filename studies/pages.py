"""A section of a page that a command makes, put in its place between two marks."""

from audit.schema import AuditError


def with_section(page: str, section: str) -> str:
    """The page with this section in place of the one between the same marks: the section's first and last lines.

    AuditError (code 2) where the page has no such marks.
    """
    lines = section.splitlines()
    before, start, rest = page.partition(lines[0])
    _, end, after = rest.partition(lines[-1])
    if not start or not end:
        raise AuditError(f"the page has no place for the tables ({lines[0]})", "restore it from the repository")
    return before + section + after
