"""Device shadows as values: what an update does, what is answered, which topics they have. Knows no store.

`document` holds the rules of state and metadata, `messages` reads requests and writes answers, `topics` names.
Core and cloud use the same rules (greengrass-core 9).
"""
