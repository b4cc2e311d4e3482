"""How good the results are: measures, and what measures the networks on data with answers."""
