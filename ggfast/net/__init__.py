"""The only doors to network libraries: TLS contexts, HTTP, the cloud's MQTT client."""
