"""How models of Keras are read, live ones and files.

Start at `config`, which follows a configuration from the inputs to the outputs. `given` checks what it
says of a layer and `calls` how that is called; `layers` and `operations` have an entry for each kind,
in the words of Keras 3 (`tensorflow` has Keras 2's), and `shapes` says what becomes of the axes.
"""
