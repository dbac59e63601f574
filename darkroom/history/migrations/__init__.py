"""How the tables came to be, step by step. Knows no program that uses them; run by `database`."""
