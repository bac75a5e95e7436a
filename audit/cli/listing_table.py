"""A listing as a table of the terminal."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.table import Table

    from audit.schema import Listing


def listing_table(listing: "Listing") -> "Table":
    """The rows of a listing under its title, which says how many there are; no cell reaches Rich as markup."""
    from rich.table import Table
    from rich.text import Text

    from audit.render import listing_grid

    grid = listing_grid(listing)
    table = Table(title=Text(grid.caption))
    for n, column in enumerate(grid.columns):
        table.add_column(Text(column), justify="right" if all(row[n].tone == "number" for row in grid.rows) else "left")
    for row in grid.rows:
        table.add_row(*(Text(cell.text) for cell in row))
    return table
