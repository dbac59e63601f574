"""Schedules, samplers, noise and filters: torch and mathematics, nothing of networks or requests."""
