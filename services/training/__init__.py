"""The training service: cohort in, model bundle out. The only service that imports torch."""
