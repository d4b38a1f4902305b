"""The edge: joins broker, router, functions, shadows and deployments into a running core."""
