"""Renders that go on where they were cut."""
