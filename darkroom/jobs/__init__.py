"""What a job is: its resolved request, the questions it asks, and the programs that ask them."""
