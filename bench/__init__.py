"""What this machine does with Darkroom, measured from outside: over HTTP, against a real server process."""
