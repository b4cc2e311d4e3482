"""How many examples hypothesis tries: few and the same ones, or `--hypothesis-profile=fuzz`."""

from hypothesis import HealthCheck, settings

SHARED = {
    'deadline': None,
    'suppress_health_check': [HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
}
settings.register_profile('quick', max_examples=20, derandomize=True, **SHARED)
settings.register_profile('fuzz', max_examples=100_000, **SHARED)
settings.load_profile('quick')
