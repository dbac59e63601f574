"""`python -m darkroom`."""

from darkroom.cli import main

if __name__ == "__main__":
    main()
