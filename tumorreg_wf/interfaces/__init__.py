"""Nipype interfaces: each a spec and a few lines."""
