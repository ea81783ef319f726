"""The three training steps, their loop and their checkpoints."""
