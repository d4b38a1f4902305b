"""The core's local shadow service: requests by the table and from functions, shadows in an SQLite file."""
