"""Networks that enlarge pictures: which there are, and how one is read and run."""
