from rich.table import Table

from apparel_embed.benchmarks.text import as_text


def test_messages_stay_what_they_are():
    table = Table()
    table.add_column("why")
    table.add_row("failed: open [/usr/lib/x] [bold]")
    text = as_text("at 10 [/] o'clock", table, "see :warning: there")
    assert "failed: open [/usr/lib/x] [bold]" in text
    assert text.startswith("at 10 [/] o'clock\n")
    assert text.endswith("\nsee :warning: there")
