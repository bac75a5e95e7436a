"""A listing as a table of the terminal."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.table import Table

    from audit.schema import Listing


def listing_table(listing: "Listing") -> "Table":
    """The rows of a listing under its title, which says so where there are more."""
    from rich.table import Table

    from audit.wording import visible

    shown, of = len(listing.rows), listing.of
    table = Table(title=listing.title + (f" (first {shown} of {of})" if shown < of else ""))
    for n, column in enumerate(listing.columns):
        numbers = all(isinstance(row[n], int | float | None) for row in listing.rows)
        table.add_column(column, justify="right" if numbers else "left")
    for row in listing.rows:
        table.add_row(*("" if cell is None else visible(str(cell)) for cell in row))
    return table
