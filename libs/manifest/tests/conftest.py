"""Property tests of this folder are judged by what they find and never by the clock."""

from hypothesis import HealthCheck, settings

settings.register_profile("manifest", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("manifest")
