"""The networks and what runs them: arrays and files in, arrays and files out."""
