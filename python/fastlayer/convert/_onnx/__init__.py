"""How ONNX models are read.

`file` has the model as the `onnx` package parses it. `network` then runs through the nodes: each
operation, in `dense`, `elementwise` and `shapes`, makes a `graph.Value` of its inputs, and the steps
that lead to the output are the network. `graph` is what the operations share. `evaluator` computes
what does not depend on the input, and runs the model itself for the proof.
"""
