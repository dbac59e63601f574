"""The web UI: pages for people over the same HTTP API that programs use.

Knows requests, answers and words. Knows nothing of the engine, of networks or of how pictures are made: what a button
does, `curl` can do. Gradio is imported by the modules below alone, and by `mount` only when the pages are built.
"""
