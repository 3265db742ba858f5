import re

from natix_lib.reports.heads import heads_table
from natix_lib.reports.render import render_report
from tests.reports.test_render import EVIL, GRID, documents


def test_heads_stand_by_accuracy_then_loss_with_their_settings_and_the_kept_one_is_marked() -> None:
    table = heads_table(GRID)
    assert table.titles[:5] == ["head", "learning rate", "weight decay", "dropout", "pooling"]
    assert [row.cells[:5] for row in table.rows] == [
        ["1", "0.01", "0.0001", "0", "cls"],
        ["2, kept", "0.001", "0.0001", "0", EVIL],
        ["3", "0.1", "0.0001", "0.2", "cls"],
        ["4", "1e+06", "0.0001", "0.2", "cls"],
    ]
    assert [row.kept for row in table.rows] == [False, True, False, False]
    figures = dict(zip(table.titles, table.rows[1].cells, strict=True))
    assert (figures["accuracy"], figures["loss"], figures["best epoch"]) == ("0.950", "0.200", "7")
    assert table.rows[3].cells[5:] == ["–"] * 6  # it never had a finite loss
    assert heads_table([]).rows == []


def test_the_report_has_the_whole_table_and_none_where_one_head_was_trained() -> None:
    evaluation, bundle, policy, splits = documents()
    html = render_report(evaluation, bundle, policy, splits)
    assert "Heads that were tried: 4" in html and EVIL not in html
    (row,) = re.findall(r"<tr>(?:(?!</tr>).)*<b>2, kept</b>.*?</tr>", html)
    assert '<td data-title="learning rate"><b>0.001</b>' in row and "<b>0.950</b>" in row
    alone = render_report(evaluation, {key: value for key, value in bundle.items() if key != "grid"}, policy, splits)
    assert "Heads that were tried" not in alone
