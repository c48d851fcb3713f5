from __future__ import annotations

import pytest

from daemon.row_queries import Relation, literal, quoted, sort_out, split_row_key, unindexed_scans
from daemon.rows import Exclusions, SweptRow


def test_identifiers_and_literals_double_their_quotes():
    assert quoted('a"b') == '"a""b"'
    assert literal("a'b") == "'a''b'"
    assert Relation('s"', "t").sql == '"s"""."t"'


def test_row_keys_split_into_the_texts_of_their_columns():
    assert split_row_key('["not","json"]', 1) == ['["not","json"]']
    assert split_row_key('["a","\\""]', 2) == ["a", '"']


@pytest.mark.parametrize("row_key", ['["a"]', '["a",1]', '{"a":1}', "5"])
def test_a_row_key_of_another_shape_is_refused(row_key):
    with pytest.raises(ValueError, match="has not 2 parts"):
        split_row_key(row_key, 2)


def test_rows_are_sorted_out_by_the_servers_reason():
    found = [
        (0, "a", 1, 2),
        (1, None, None, 0),
        (2, "b", None, 0),
        (3, "c", 9, 0),
        (4, "d", 1, 0),
        (5, None, 1, 0),
        (3, "e", 9, 0),
    ]
    kept, excluded, null_keys = sort_out(found)
    assert kept == [SweptRow("a", 1, 2)]
    assert excluded == Exclusions(newer_than_cutoff=2, where=1, null_created_at=1, null_value=1)
    assert null_keys == 1


def plan(*nodes):
    return [{"Plan": {"Node Type": "Append", "Plans": list(nodes)}}]


@pytest.mark.parametrize(
    ("node", "found"),
    [
        ({"Node Type": "Index Scan", "Index Name": "i", "Index Cond": "x"}, []),
        ({"Node Type": "Function Scan"}, []),
        (
            {
                "Node Type": "Bitmap Heap Scan",
                "Plans": [{"Node Type": "Bitmap Index Scan", "Index Cond": "x"}],
            },
            [],
        ),
        ({"Node Type": "Index Scan", "Relation Name": "t"}, ["Index Scan on t"]),
        ({"Node Type": "Seq Scan", "Relation Name": "t"}, ["Seq Scan on t"]),
        ({"Node Type": "Foreign Scan", "Relation Name": "f"}, ["Foreign Scan on f"]),
        (
            {
                "Node Type": "Bitmap Heap Scan",
                "Plans": [{"Node Type": "Bitmap Index Scan", "Index Name": "i"}],
            },
            ["Bitmap Index Scan on i"],
        ),
    ],
)
def test_scans_without_an_index_condition_are_found_at_any_depth(node, found):
    assert unindexed_scans(plan(node)) == found
