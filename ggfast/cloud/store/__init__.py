"""What the control plane keeps: documents in one `Store`, large things as files by digest."""
