"""Darkroom: a Stable Diffusion image server. The API its clients speak, an engine for many people at once."""

__version__ = "0.1.0"
