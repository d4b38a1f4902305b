"""Commands: ggfast-core, greengrassd."""
