"""Property tests here are judged by what they find, never by how long an example took."""

from hypothesis import settings

settings.register_profile("no deadline", deadline=None)
settings.load_profile("no deadline")
