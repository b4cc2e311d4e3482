"""Workflow factories, a file per stage; base ties them together."""
