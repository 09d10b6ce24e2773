"""Words and phrases that confused readers are banned, in text and in names."""

import re

import pytest
from docs_blocks import ROOT

# Regular expressions, case-insensitive, each with a replacement if it is not obvious.
BANNED = {
    r"(?<!=.)\ball else\b(?!:)": "everything else",
    r"allowed (is|are) ": "expected ..., got ...",
    r"bars nobody": "leaves no lock",
    r"by heart": "overfits",
    r"by the command it tells": "with the printed command",
    r"came of it": "the result, a summary",
    # Except in the former names of flags.
    r"(?<!`)(?<!--)(?<!replace\(.)picture": "image",
    r"\bdearest\b": "the most expensive",
    r"disk_errors_told": "disk_errors_as_user_errors",
    r"end(s|ed) well": "without an error",
    r"\bfor to\b": "to",
    r"goes? on where it was": "resumes",
    r"if that is to be done": "if needed",
    r"in the mean\b": "on average",
    r"make nothing of": "could not embed",
    r"\bmakeshift\b": "",
    r"\bmend (it|them)\b": "fix",
    r"no cluster of workers": "not a valid TF_CONFIG",
    r"\boften?er\b": "more often",
    r"pull_strengths": "pair_gradient_weights",
    r"random state there is": "there is no random state",
    r"removes what is gone": "deletes what is missing",
    r"start_afresh": "reset_and_seed",
    r"tell_end": "print_summary",
    r"telling (file )?names?\b": "structured file names",
    r"telling_damage": "report_corrupt_records",
    r"\btold\b(?! apart)|(?<!errors)_told(?!_apart)": "reported, logged; the error names",
    r"\b(anew|likeliest)\b": "again, most likely",
    r"\bvouch": "to check by",
    r"\bwhat (it|they) bears?\b": "",
    r"what is to be (said|remembered)": "",
    r"whole way": "everything, to the end",
    r"floors? below": "layers below",
    r"for who sees": "",
    r"is reckoned": "is computed",
    r"nobody knows": "unknown",
    r"taken anyhow": "",
    r"to have a say": "",
}
PLACES = (
    "*.md", "Makefile", "Dockerfile", "mkdocs.yml", "docs/**/*.md", "docs/**/*.py", "flags/*.flags",
    "tools/*.py", "tests/**/*.py", "apparel_embed/**/*",
)  # fmt: skip
TEXTS = {"", ".css", ".flags", ".html", ".js", ".md", ".py", ".yaml", ".yml"}


@pytest.fixture(scope="module")
def texts():
    found = {path for place in PLACES for path in ROOT.glob(place)}
    return {
        str(path.relative_to(ROOT)): path.read_text("utf-8")
        for path in sorted(found)
        if path.is_file() and path.suffix in TEXTS and path.name != "test_english.py"
    }


def test_no_banned_phrase_is_used(texts):
    assert len(texts) > 400
    wrong = []
    for phrase, better in BANNED.items():
        # A phrase may be broken over two lines, also within a comment.
        pattern = re.compile(phrase.replace(" ", r"\s+(?:#\s+)?"), re.IGNORECASE)
        for name, text in texts.items():
            for match in pattern.finditer(text):
                line = text[: match.start()].count("\n") + 1
                wrong.append(f"{name}:{line}: {match[0]!r}" + f" -> {better}" * bool(better))
    assert wrong == []


def test_the_readme_is_at_most_200_lines():
    assert len((ROOT / "README.md").read_text("utf-8").splitlines()) <= 200
