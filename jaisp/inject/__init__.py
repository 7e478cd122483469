"""Skies with known answers: sources injected into tiles before they are warped.

Nothing is imported here: a dry run needs only `jaisp.inject.names`.
"""
