"""How ONNX files are read.

`wire` cuts a file into its pieces, `file` makes plain data of them. `network` then runs through the
nodes: each operation, in `dense`, `elementwise`, `functions` and `shapes`, makes a `values.Value`
of its inputs, and the steps back from the output are the network. `graph` is what the operations
share. `terms` knows activations that an exporter took apart; `constants` computes what does not
depend on the input, and `external` fetches weights from files beside the model.
"""
