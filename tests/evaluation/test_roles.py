import pytest

from apparel_embed.evaluation.roles import model_to_deploy


def compared(difference, low, high, vertical="ALL", minus="combined"):
    return {
        "model": "unified",
        "minus": minus,
        "vertical": vertical,
        "queries": 1200,
        "difference": difference,
        "low": low,
        "high": high,
        "is_clear": low > 0 or high < 0,
    }


def row(model, r_at_1, scope="within", vertical="ALL"):
    return {"model": model, "scope": scope, "vertical": vertical, "r_at_1": r_at_1}


@pytest.mark.parametrize(
    ("difference", "model", "why"),
    [
        ((0.15, 0.12, 0.19), "unified", "R@1 0.150 [0.120, 0.190] above combined"),
        ((-0.15, -0.19, -0.12), "combined", "R@1 0.150 [0.120, 0.190] above unified"),
        (
            (-0.03, -0.09, 0.02),
            "unified",
            "the default; R@1 -0.030 [-0.090, +0.020] against combined may be chance "
            "(1,200 queries), so try both",
        ),
    ],
)
def test_the_student_is_deployed_unless_the_combined_model_is_clearly_better(
    difference, model, why
):
    others = [compared(-0.5, -0.6, -0.4, "bag"), compared(-0.5, -0.6, -0.4, minus="specialists")]
    assert model_to_deploy([], [*others, compared(*difference)]) == (model, why)


def test_no_model_is_chosen_if_the_two_were_not_compared():
    others = [compared(0.5, 0.4, 0.6, minus="specialists")]
    assert model_to_deploy([], others) == ("", "student and combined model were not compared")


def test_a_histogram_that_is_as_good_is_reported():
    rows = [row("unified", 0.6), row("colour_histogram", 0.7), row("colour_histogram", 0, "merged")]
    model, why = model_to_deploy(rows, [compared(0.15, 0.12, 0.19)])
    assert model == "unified"
    assert why.endswith(
        "above combined; but a colour histogram reaches 0.700 against 0.600: there was too little "
        "data to learn from"
    )
    rows[1]["r_at_1"] = 0.5
    assert "histogram" not in model_to_deploy(rows, [compared(0.15, 0.12, 0.19)])[1]
