"""How modules of PyTorch are read.

`forward` follows a forward and the functions in it; `layers` says what the modules are.
"""
