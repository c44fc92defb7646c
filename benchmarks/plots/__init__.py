"""Figures of the records, drawn from their JSON alone."""
