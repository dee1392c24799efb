"""How `accelerate` understands an object.

`objects` looks for arrays and functions, which are `stages`; `recognise` finds out which activation
a function is; `plans` tries what the whole may be and proves it; `live` runs it on the object's
arrays.
"""
