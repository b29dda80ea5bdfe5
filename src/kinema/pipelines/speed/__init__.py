"""Speed tiers: what may be left out of a model's runs, as it was measured, and how far that is from exact."""
