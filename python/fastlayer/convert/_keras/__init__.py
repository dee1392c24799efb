"""How models of Keras are read, live ones and files.

Start at `config`, which follows a configuration; `layers` has an entry for each kind of layer.
"""
