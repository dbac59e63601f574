"""The prompt language: strings in, weighted tokens out. Knows no tensors and no networks."""
