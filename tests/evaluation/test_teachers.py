from apparel_embed.evaluation.teachers import HEADINGS, choice_rows, render_teachers

CHOICES = [
    {
        "vertical": "bags",
        "chosen": "specialist-bags",
        "queries": 120,
        "items": 40,
        "candidates": [
            {"name": "joint", "r_at_1": 0.5, "difference": 0.0, "low": -0.05},
            {"name": "specialist-bags", "r_at_1": 0.75, "difference": 0.25, "low": 0.1},
        ],
    },
    {"vertical": "hats", "chosen": "joint", "queries": 0, "items": 0, "candidates": []},
]


def test_every_vertical_has_a_line_of_its_teacher_and_the_evidence():
    assert choice_rows(CHOICES) == [
        ("bags", "specialist-bags", "120", "40", "joint 0.500, specialist-bags 0.750"),
        ("hats", "joint", "0", "0", "no query has an answer"),
    ]
    assert all(len(row) == len(HEADINGS) for row in choice_rows(CHOICES))


def test_the_table_is_plain_text():
    text = render_teachers({"choices": CHOICES})
    cells = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line
    ]
    assert tuple(cells[0]) == HEADINGS
    assert tuple(cells[2]) == choice_rows(CHOICES)[0]
    assert text.isascii()
