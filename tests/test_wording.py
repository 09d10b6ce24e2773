from apparel_embed.wording import counted, one_line


def test_counts_go_with_their_nouns():
    assert counted(1, "query", "queries") == "1 query"
    assert counted(1200, "query", "queries") == "1,200 queries"
    assert counted(0, "picture") == "0 pictures"


def test_what_libraries_say_becomes_one_line():
    assert one_line(ValueError("  two\n\tlines \n")) == "two lines"
    assert one_line("") == ""
