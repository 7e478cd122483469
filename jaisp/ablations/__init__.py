"""Ablations: many short trainings that differ in one thing each, from one file that lists them.

`arms` reads the list, `dag` tells the workflow of it, `one` trains and measures an arm, `figures`
gathers what was measured, `record` keeps it, and `page` writes it down.
"""
