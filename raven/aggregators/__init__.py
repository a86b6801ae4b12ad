"""Aggregators: subscribe, step the kernels, checkpoint, publish."""
