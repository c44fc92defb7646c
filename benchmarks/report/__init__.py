"""docs/performance.md out of the records in build/bench: python -m benchmarks.report"""
