"""Deployments on the cloud's side: freezing a group version, what cores fetch, what they report."""
