"""How token grids and their maps are laid out. Light: estimates of a run do without torch."""

# Tokens along a window, and along a chunk of the token grid.
WINDOW = 32
# A grid of more chunks keeps each row of them in one file: as many files as chunks would be 10⁹ of
# a wide survey.
MOST_FILES = 64
COMPONENTS = 8  # of a map's FITS file
