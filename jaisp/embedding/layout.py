"""How token grids and their maps are laid out. Light: estimates of a run do without torch."""

# Tokens along a chunk of the token grid.
CHUNK = 32
# Tokens along a window that is encoded at once, some chunks. Around it a margin is encoded for
# nothing: a window of 32 tokens of 0.8″ costs six times its own tokens, one of 96 twice.
WINDOW = 96
# A grid of more chunks keeps each row of them in one file: as many files as chunks would be 10⁹ of
# a wide survey.
MOST_FILES = 64
COMPONENTS = 8  # of a map's FITS file
