"""Other video pipelines of diffusers: facts about each family, and one adapter that calls them all."""
