"""How ONNX models are read.

`file` has the model as the `onnx` package parses it. `network` then runs through the nodes: each
operation, in `dense`, `elementwise` and `shapes`, makes a `values.Value` of its inputs, and the steps
that lead to the output are the network. `graph` is what the operations share. `constants` computes
what does not depend on the input; that, and the model itself for the proof, are run by `evaluator`.
"""
