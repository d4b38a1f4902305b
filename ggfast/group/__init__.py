"""The Greengrass group as a value: parsing, validation, differences. No input or output."""
