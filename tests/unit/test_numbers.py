"""Numbers stay with their owners and are dense."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vxagent.core.numbers import Numbers
from vxagent.errors import Refused
from vxagent.model.ids import MAX_MEMBERS


def test_the_owner_keeps_its_number() -> None:
    numbers = Numbers()
    assert numbers.take("port", "a") == numbers.take("port", "a") == 1


def test_the_lowest_free_number_is_given() -> None:
    numbers = Numbers()
    for owner in "abc":
        numbers.take("port", owner)
    numbers.release("port", "a")
    assert numbers.take("port", "d") == 1


def test_the_2113th_member_of_a_segment_is_refused() -> None:
    numbers = Numbers()
    for n in range(MAX_MEMBERS):
        numbers.take("slot/blue", f"p{n}")
    with pytest.raises(Refused, match="segment blue has 2112 members already"):
        numbers.take("slot/blue", "one more")


def test_a_full_space_takes_again_once_one_is_released() -> None:
    numbers = Numbers()
    for n in range(MAX_MEMBERS):
        numbers.take("slot/blue", f"p{n}")
    numbers.release("slot/blue", "p7")
    assert numbers.take("slot/blue", "one more") == 7


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 9))))
def test_numbers_are_unique_and_survive_saving(steps: list[tuple[bool, int]]) -> None:
    numbers = Numbers()
    for take, owner in steps:
        if take:
            numbers.take("segment", str(owner))
        else:
            numbers.release("segment", str(owner))
    assert len(set(numbers.given.values())) == len(numbers.given)
    again = Numbers(numbers.given)
    assert again.top("segment") == numbers.top("segment")
    assert again.take("segment", "new") == numbers.take("segment", "new")
