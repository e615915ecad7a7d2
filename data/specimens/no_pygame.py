"""Does not use pygame: a game in the terminal."""

import random

score = 0
while input("SPACE and Enter to fly, q to quit: ") != "q":
    if random.random() < 0.3:
        print("You hit a pipe. Score:", score)
        score = 0
    else:
        score += 1
