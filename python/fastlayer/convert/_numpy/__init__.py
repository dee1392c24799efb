"""How `accelerate` understands an object.

`objects` looks it through for arrays and functions; `recognise` tells which activations these are,
by what they return. `use` follows it through its operations: `trace` notes them, and `program` tells
which are layers, and runs them.
"""
