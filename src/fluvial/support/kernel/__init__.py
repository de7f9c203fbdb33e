"""The exact field of each task's support as an attention head, and how its logits are computed."""
