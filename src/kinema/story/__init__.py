"""What a person asks for, checked and free of torch: expressions, tracks, prompts, shots, storyboards."""
