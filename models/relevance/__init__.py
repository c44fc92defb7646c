"""How much does a feature weigh in the verdict? First order, and by taking the feature away."""
