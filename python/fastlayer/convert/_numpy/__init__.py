"""How `accelerate` understands an object, in the order of the flow.

`objects` looks it through for arrays and functions; `candidates` makes forward passes that it may be,
of the shapes of the arrays and of activations that `recognise` knows by what they return; `live` is
such a forward pass: it reads the object's arrays at each call, and is proven by running both.
"""
