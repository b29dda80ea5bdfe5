"""Image models: their cards, and the engines that draw with them."""
