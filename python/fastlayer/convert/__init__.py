"""Networks that were trained or written elsewhere: one module a source.

None of these modules imports the framework that it converts from: live objects come from a
framework that the user has already imported, files are read by small readers.
"""
