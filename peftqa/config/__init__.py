"""What params.yaml may contain: schema and checks."""
