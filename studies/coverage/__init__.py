"""How often the intervals of an audit cover what they should."""
