"""The HTTP gateway: turns requests into jobs and finished pictures into answers. Sees of the engine its client only."""
