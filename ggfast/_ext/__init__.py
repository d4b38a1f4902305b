"""Compiled modules; their sources live in ext/, the faces for Cython (.pxd) and type checkers (.pyi) here."""
