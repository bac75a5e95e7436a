"""Training copies of checkpoints by recipes."""
