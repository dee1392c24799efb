"""How `from_torch` reads a module: `fx` follows its forward; `layers` and `functions` know torch's."""
