"""The plots of an evaluation: each a PNG and the JSON of the numbers in it."""
