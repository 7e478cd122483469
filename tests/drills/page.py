"""docs/drills.md, from what the drills found."""

import re

HEAD = """# What happens when something dies

Every way in which a run can be cut short or spoilt, done on purpose, at random moments and places,
on a field of two patches; `make drills` repeats it. A repetition ends well when the command that
met the failure was killed, ended by itself, or said what is the matter in one line with an exit
status other than 0; and when the same command (or, first, what that line says) then gives the bytes
of an undisturbed run: store, model, history, embeddings, metrics. *Lost*: results that could not be
had again, or a failure without one clear line. *Silently used*: a command that ended well with
other results.

| failure | times | in one line | no line needed | equal results after all | lost | silently used |
|---|---|---|---|---|---|---|
"""
BYTES_OF = re.compile(r"\d+")


def page(found: dict[str, dict]) -> str:
    """The page's text."""
    text = HEAD
    for entry in found.values():
        rows = entry["rows"]
        silent = sum(row["status"] == 0 and not row["equal"] for row in rows)
        lost = sum(not row["equal"] or "said" in row for row in rows) - silent
        lines = sum(row["line"] is not None for row in rows)
        quiet = sum(row["line"] is None and "said" not in row for row in rows)
        equal = sum(row["equal"] for row in rows)
        text += f"| {entry['failure']} | {len(rows)} | {lines} | {quiet} | {equal} | {lost} | "
        text += f"{silent} |\n"
    text += "\n## The lines\n"
    for entry in found.values():
        text += f"\n**{entry['failure']}.** For example, {entry['rows'][0].get('did', '')}.\n"
        shown: dict[str, str] = {}
        for row in entry["rows"]:
            if row["line"]:
                shown.setdefault(BYTES_OF.sub("", row["line"])[:60], row["line"])
        text += "".join(f"\n    {line}\n" for line in shown.values())
    return text
