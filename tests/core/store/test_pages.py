"""Are a segment's free ranges and resident pages what a page-by-page record says?"""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from rdata.core.store.pages import PAGE_BYTES, Pages, pages_for

NUM_PAGES = 24
STEPS = st.lists(st.one_of(st.integers(1, 9), st.sampled_from(["free", "punch"])), max_size=40)


def test_every_object_has_a_page_of_its_own() -> None:
    assert [pages_for(size) for size in (0, 1, PAGE_BYTES, PAGE_BYTES + 1)] == [1, 1, 1, 2]


def test_a_range_in_the_middle_is_taken_and_merges_when_given_back() -> None:
    pages = Pages(10)
    for first in (0, 3, 6):
        pages.take(first, 3)
    pages.give_back(0, 3)
    pages.give_back(6, 3)
    assert pages.find(4) == 6, "pages 6 to 9 were not merged"
    pages.give_back(3, 3)
    assert pages.find(10) == 0
    assert (pages.num_taken, pages.num_resident, pages.num_unused) == (0, 9, 9)
    assert not pages.are_resident(8, 2)
    assert pages.punch() == [(0, 9)]
    assert pages.num_resident == 0


@given(steps=STEPS, data=st.data())
def test_pages_agree_with_a_record_of_each(steps: list[int | str], data: st.DataObject) -> None:
    pages = Pages(NUM_PAGES)
    is_taken, is_resident = [False] * NUM_PAGES, [False] * NUM_PAGES
    taken: list[tuple[int, int]] = []
    for step in steps:
        if step == "punch":
            punched = {
                page for first, count in pages.punch() for page in range(first, first + count)
            }
            assert not any(is_taken[page] for page in punched)
            is_resident = [was and page not in punched for page, was in enumerate(is_resident)]
            assert is_resident == is_taken, "unused pages were left resident"
        elif step == "free":
            if taken:
                first, count = taken.pop(data.draw(st.integers(0, len(taken) - 1)))
                pages.give_back(first, count)
                is_taken[first : first + count] = [False] * count
        else:
            assert isinstance(step, int)
            found = pages.find(step)
            fits = [
                first
                for first in range(NUM_PAGES - step + 1)
                if not any(is_taken[first : first + step])
            ]
            assert found == (fits[0] if fits else None), (
                "not the first free range that is long enough"
            )
            if found is not None:
                assert pages.are_resident(found, step) == all(is_resident[found : found + step])
                pages.take(found, step)
                is_taken[found : found + step] = is_resident[found : found + step] = [True] * step
                taken.append((found, step))
        assert (pages.num_taken, pages.num_resident) == (sum(is_taken), sum(is_resident))
