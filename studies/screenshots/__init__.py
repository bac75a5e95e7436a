"""Pictures of the dashboard for the README, taken by a script."""
