from inspected import labels_of

from apparel_embed.data.inspection.inspect import choose_sheets


def some_labels(tmp_path, items=20):
    rows = [
        (f"item{item}", "tops", "train", role)
        for item in range(items)
        for role in ("query", "gallery", "both")
    ]
    return labels_of(tmp_path, [*rows, *[("big", "bags", "test", "gallery")] * 12])


def test_items_are_drawn_by_seed_and_shown_gallery_first(tmp_path):
    labels = some_labels(tmp_path)
    bags, tops = choose_sheets(labels, 4, 0)
    assert (bags.vertical, tops.vertical) == ("bags", "tops")
    assert (tops.of_items, len(tops.items)) == (20, 4)
    assert choose_sheets(labels, 4, 0) == (bags, tops)
    assert choose_sheets(labels, 4, 1)[1] != tops
    first = tops.items[0]
    number = int(first.item[4:])
    assert first.rows == (3 * number + 1, 3 * number + 2, 3 * number)
    assert (first.split, first.images) == ("train", 3)
    assert (bags.items[0].images, len(bags.items[0].rows)) == (12, 8)
    assert choose_sheets(labels, 0, 0) == ()
