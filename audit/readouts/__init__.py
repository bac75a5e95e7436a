"""Batched numerics on tensors, shared by probes and edits: read-outs with a group left out, and their label swaps."""
