"""Faces in pictures: finding them, bringing them to a network's size, and laying what it made of them back."""
