"""The contract: what crosses a process, a file or a network boundary, as typed messages.

Imported as ``wire`` because the name ``proto`` belongs to the PyPI package proto-plus. The JSON
schemas beside this package are generated from these classes by ``python -m wire.schemas``.
"""
