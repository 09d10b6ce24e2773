from apparel_embed.wording import counted


def test_counts_go_with_their_nouns():
    assert counted(1, "query", "queries") == "1 query"
    assert counted(1200, "query", "queries") == "1,200 queries"
    assert counted(0, "picture") == "0 pictures"
