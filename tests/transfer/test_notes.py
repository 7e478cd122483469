"""Notes of a file: lines that are added, of which one that was cut spoils none."""

import json

from jaisp.transfer.part import Origin, Part, add_note, read_notes

ENTRY = {"file": "hst/00/0-a.fits", "bytes": 7, "sha256": "00"}
ORIGIN = Origin("http://a/b.fits", '"one"', 7)


def test_a_line_that_was_cut_spoils_neither_those_before_nor_after(tmp_path):
    part = Part(tmp_path / "downloads" / "a")
    part.begin(ORIGIN)
    part.path.write_bytes(b"1234567")
    with part.notes.open("a") as file:
        file.write('\n{"file": "hst/00')
    assert part.is_whole(ORIGIN.address)
    assert not any("file" in note for note in read_notes(part.notes))
    add_note(part.notes, ENTRY)
    assert read_notes(part.notes)[-1] == ENTRY
    assert part.is_whole(ORIGIN.address)


def test_a_note_on_many_lines_is_read_as_before(tmp_path):
    (tmp_path / "a.json").write_text(json.dumps(ENTRY, indent=1))
    assert read_notes(tmp_path / "a.json") == [ENTRY]


def test_what_is_forgotten_leaves_the_file_that_holds_the_lock(tmp_path):
    part = Part(tmp_path / "a")
    part.begin(ORIGIN)
    before = part.notes.stat().st_ino
    part.discard()
    part.begin(ORIGIN)
    assert part.notes.stat().st_ino == before
    assert len(read_notes(part.notes)) == 1


def test_where_nothing_is_noted_there_are_no_notes(tmp_path):
    assert read_notes(tmp_path / "none.json") == []
    (tmp_path / "b.json").write_bytes(b"\xff[1]\n")
    assert read_notes(tmp_path / "b.json") == []
