import pytest

from rotnet_keras.text import duration, first_few, percent, printable


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (None, ""),
        (0, "0 s"),
        (-3, "0 s"),
        (59.4, "59 s"),
        (59.6, "1 min 00 s"),
        (190, "3 min 10 s"),
        (3599.7, "1 h 00 min"),
        (3720, "1 h 02 min"),
        (86399, "1 d 00 h"),
        (3 * 86400 + 4 * 3600, "3 d 04 h"),
    ],
)
def test_a_duration_has_its_two_largest_units(seconds, words):
    assert duration(seconds) == words


def test_a_percentage_says_so_unless_its_column_does():
    assert percent(0.8404) == "84.0 %"
    assert percent(0.8404, digits=0) == "84 %"
    assert percent(0.8404, sign="") == "84.0"
    assert percent(None) == ""


@pytest.mark.parametrize(
    ("share", "words"),
    [(0.95, "95 %"), (0.9995, "99.95 %"), (0.33, "33 %"), (1 / 3, "33.33 %"), (0, "0 %"), (1, "100 %")],
)
def test_a_percentage_has_as_many_digits_as_it_needs(share, words):
    assert percent(share, digits=None) == words


@pytest.mark.parametrize(
    ("share", "words"), [(0.84, "84.0 %"), (0.0034, "0.34 %"), (0.00034, "0.034 %"), (0.009, "0.90 %"), (0, "0.0 %")]
)
def test_a_small_percentage_has_significant_digits(share, words):
    assert percent(share, significant=2) == words


def test_a_long_list_is_cut_short():
    assert first_few(["a", "b"]) == "a, b"
    assert first_few(list("abcdefg"), most=2) == "a, b and 5 more"


def test_control_characters_are_left_out():
    assert printable("a\x1b[2Jb\n\tc\x00") == "a[2Jb\n\tc"
