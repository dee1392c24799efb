"""How modules of PyTorch are read.

`fx` follows a forward; `layers` and `functions` say what the modules and functions in it are.
"""
