"""What a lesion's image says by itself, and what it would say without a feature: no network."""
