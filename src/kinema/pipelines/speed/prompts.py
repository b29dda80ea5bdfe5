"""What a model is measured with where nothing else is given: subjects, grounds and motions of many kinds."""

PROMPTS = (
    "a rooster on a blue background",
    "a penguin on a yellow background, moving to the left",
    "a snowman on a green background",
    "a fox on a purple background, moving to the right",
    "an octopus on a background from blue to white",
    "a rocket on a black background, moving up",
    "a red apple on a white background",
    "a panda on a pink background",
    "a tiger on an orange background, moving to the right",
    "a butterfly on a green background, moving up",
    "a dragon on a gray background",
    "a sun on a background from red to yellow, moving down",
)
