"""How models of Keras are read, live ones and files.

Start at `config`, which follows a configuration; `given` checks what is in it, `layers` has an entry
for each kind of layer.
"""
