"""What devices and cores reach with their certificates: MQTT, and HTTPS for discovery, data and deployments.

TLS (our CA and registered certificates) -> identity (certificate -> region, things, policies) -> mqtt | https
"""
