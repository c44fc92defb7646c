"""The processes around the science.

Their linear algebra is small: a second BLAS thread gains nothing, and where other processes want
the cores it spins and costs ten times the work. Must be set before NumPy is imported.
"""

import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
