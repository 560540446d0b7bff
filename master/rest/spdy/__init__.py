"""SPDY/3.1 as far as Kubernetes' streams need it: kubectl's fallback for exec, and all its port-forwarding."""
