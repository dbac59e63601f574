"""One module for each step. Knows tables as they were then."""
