"""Measures Darkroom on this machine, and beside it what others use. `darkroom bench` runs it; nothing else needs it."""
