"""Making training data, and training the networks on it."""
