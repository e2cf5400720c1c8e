"""docs/seed-report.md, held against the tree."""

import glob
import os
import re

from support.gateway import REPOSITORY

SECTIONS = ["0", "1", "2.1", "2.2", "2.3", "2.4", "3.1", "3.2", "3.3", "4.1", "4.2", "4.3", "5.1", "5.2", "5.3", "6.1",
            "6.2", "7.1", "7.2", "7.3", "8.1", "8.2", "8.3", "9", "10.1", "10.2", "10.3", "11.1", "11.2", "12", "13",
            "A", "B", "C", "end"]
VERDICTS = {"met", "other", "no", "claim", "open"}


def read(path):
    with open(os.path.join(REPOSITORY, path), encoding="utf-8") as file:
        return file.read()


def page_rows():
    """(section, finding, verdict, where, test) of every row of the page's tables."""
    for line in read("docs/seed-report.md").splitlines():
        cells = [cell.strip() for cell in re.split(r"(?<!\\)\|", line.strip().strip("|"))]
        if line.startswith("|") and not set(line) <= set("|- ") and cells[0] not in ("§", "word") and cells[0][0] != "*":
            yield cells


def test_every_section_of_the_report_has_rows_and_each_row_five_cells():
    rows = list(page_rows())
    assert all(len(row) == 5 and row[1] and row[2] and row[3] for row in rows), [r for r in rows if len(r) != 5]
    assert {row[0] for row in rows} == set(SECTIONS)
    assert {row[2].strip("*") for row in rows} <= VERDICTS


def test_every_file_and_test_that_the_page_names_exists():
    named = 0
    for section, finding, _, where, test in page_rows():
        for path in re.findall(r"\]\(([^)#]+)", where):
            named += 1
            assert os.path.exists(os.path.join(REPOSITORY, "docs", path)), (section, finding, path)
        for file, name in re.findall(r"`(test_\w+\.(?:py|c))(?:::(\w+))?`", test):
            named += 1
            found = glob.glob(os.path.join(REPOSITORY, "tests", "*", file))
            assert found, (section, finding, file)
            assert not name or re.search(rf"\b{name}\b", read(found[0])), (section, finding, name)
    assert named > 150


def test_what_is_said_to_be_met_or_wrong_has_a_test_and_what_is_open_a_reason():
    for section, finding, verdict, where, test in page_rows():
        if verdict in ("**met**", "**other**"):
            assert "`test_" in test or "`tests/" in test, (section, finding)
        if verdict == "**open**":
            assert len(where) > 20, (section, finding)
