"""What clients may change while the server runs: the table of all options, their values at one moment, their file."""
