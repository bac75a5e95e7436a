"""What the plan of the house is measured by: imports, rooms, walks and names, all read from syntax trees."""
