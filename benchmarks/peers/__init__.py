"""Other servers of the same ONNX file, each at its best: what it runs in, and how it is asked.

The scripts beside this file run in environments of their own, build/bench/venv-<name>, made from
the requirements here; they import nothing of this project.
"""
