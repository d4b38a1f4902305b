"""An MQTT broker, usable by core and cloud alike: policy in Python over the compiled fast lane."""
