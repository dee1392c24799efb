"""How `accelerate` understands an object, in the order of the flow.

`objects` looks it through for arrays and functions. `candidates` makes forward passes that it may be,
of the shapes of the arrays and of activations that `recognise` knows by what they return; the first
that gives what the object gives is run on the object's arrays from then on.
"""
