"""How estimators of scikit-learn are read.

`models` and `transformers` have a table each, from a class's name to what an object of it does;
`columns` makes steps of `_graph` of what transformers do, and `stand_in` is what predicts.
"""
