"""Many suspects of one base: what they share is made once, and their audits are spread over processes or a cluster."""
