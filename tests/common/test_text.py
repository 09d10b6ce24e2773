import pytest
from rich import box
from rich.table import Table

from apparel_embed.common.text import counted, one_line, plain_text


def two_columns(*rows):
    table = Table("item", "n", box=box.MARKDOWN)
    for row in rows:
        table.add_row(*row)
    return table


@pytest.mark.parametrize("name", ["[/usr/lib/x]", "[red]", ":dress:", "[link=x]y[/link]", "裙 [/]"])
def test_brackets_and_colons_are_not_read_as_markup(name):
    text = plain_text(f"of {name}", two_columns([name, "1"]))
    assert text.startswith(f"of {name}\n")
    assert f"| {name} " in text.splitlines()[-1]


def test_parts_are_stacked_without_blanks_at_the_ends():
    assert plain_text("\na  ", "", two_columns(["x", "1"]), "b").splitlines() == [
        "a",
        "",
        "",
        "| item | n |",
        "|------|---|",
        "| x    | 1 |",
        "",
        "b",
    ]


def test_text_is_folded_only_if_a_width_is_given():
    long = "garment " * 40
    assert max(map(len, plain_text(two_columns([long, "1"])).splitlines())) > 300
    folded = plain_text(long, two_columns([long, "1"]), width=50)
    assert max(map(len, folded.splitlines())) <= 50
    assert folded.count("garment") == 80


def test_counts_agree_with_their_nouns():
    assert counted(1, "query", "queries") == "1 query"
    assert counted(1200, "query", "queries") == "1,200 queries"
    assert counted(0, "image") == "0 images"


def test_errors_become_one_line():
    assert one_line(ValueError("  two\n\tlines \n")) == "two lines"
    assert one_line("") == ""
