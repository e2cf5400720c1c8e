"""What README.md says of files, SQL, options and commands, held against them."""

import os
import re

import pytest

from support.gateway import REPOSITORY, oncehook


def read(path):
    with open(os.path.join(REPOSITORY, path), encoding="utf-8") as file:
        return file.read()


README = read("README.md")


def rows(text, head):
    """The rows of the Markdown table that begins with `head`, as lists of cells."""
    table = text.split(head + "\n", 1)[1].split("\n\n")[0].splitlines()[1:]
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in table]


def test_the_sql_is_quoted_exactly():
    quoted = re.findall(r"```sql\n(.*?)```", README, re.DOTALL)
    assert any("ON CONFLICT DO NOTHING" in text for text in quoted)
    for text in quoted:
        assert text in read("sql/0018_cheaper_capture.up.sql")


def test_every_link_leads_to_a_file():
    links = [link for link in re.findall(r"\]\(([^)#]+)\)", README) if "://" not in link]
    assert len(links) > 15
    for link in links:
        assert os.path.exists(os.path.join(REPOSITORY, link)), link


def test_options_are_those_of_the_table_of_options():
    documented = {row[0]: row[2] for row in rows(read("docs/configuration.md"), "| option | type | default | meaning |")}
    shown = rows(README, "| option | default | meaning |")
    assert len(shown) > 8
    for option, default, _ in shown:
        assert documented[option] == default, option


def test_the_transcript_ends_with_the_newest_migration():
    made = sorted(name.removesuffix(".up.sql").split("_", 1) for name in os.listdir(os.path.join(REPOSITORY, "sql"))
                  if re.fullmatch(r"\d{4}_\w+\.up\.sql", name))
    shown = re.findall(r"^oncehook dev: applied (\d{4}) (\w+) in \d+ ms$", README, re.M)
    assert list(shown[-1]) == made[-1] and [list(one) for one in shown[:2]] == made[:2]
    assert f"\noncehook dev: verified: version {len(made)} of {len(made)}, 0 invalid" in README


def test_every_command_is_named():
    listed = re.findall(r"^  (\w+) ", oncehook("--help").stdout.split("Commands:")[1], re.MULTILINE)
    assert [row[0].strip("`").split()[1] for row in rows(README, "| command | does |")] == listed


@pytest.mark.parametrize("metric", re.findall(r"`(oncehook_\w+)", README))
def test_metrics_are_documented(metric):
    assert f"`{metric}" in read("docs/metrics.md")


def test_every_library_has_its_line():
    linked = re.findall(r"pkg_check_modules\(\w+ REQUIRED IMPORTED_TARGET ([\w-]+)\)", read("CMakeLists.txt"))
    dependencies = read("docs/dependencies.md").lower()
    assert len(linked) > 6
    for library in linked:
        assert library.removeprefix("lib") in dependencies, library
