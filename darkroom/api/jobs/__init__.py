"""Requests for work as things of their own: with an id, a place in the queue, a course, an end that outlives them."""
