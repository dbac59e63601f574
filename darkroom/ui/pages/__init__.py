"""The pages, one module each: `build(shell)` puts its controls into the tab that is open."""
