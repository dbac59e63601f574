"""Reads pickled files of weights without unpickling them, and writes what they hold as safetensors.

Runs as a process of its own (`process`) with the standard library alone. `machine` interprets pickle's instructions:
names of modules are looked up in a list (`names`) and never imported, and whatever a file says is to be called gives a
note of a tensor, a plain value or an inert object. Nothing here knows torch, and nothing outside runs any of it.
"""
