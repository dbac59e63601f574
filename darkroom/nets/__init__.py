"""Checkpoint files and the networks in them: tensors in, tensors out. Knows nothing of jobs, prompts or requests."""
