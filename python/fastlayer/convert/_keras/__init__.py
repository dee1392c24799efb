"""How models of Keras are read, live ones and files.

Start at `config`, which follows a configuration; `calls` and `given` check what is in it, `layers`
has a function for each kind of layer. `hdf5` reads the weights of files.
"""
