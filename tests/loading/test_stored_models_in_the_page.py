"""The page's list of stored models."""

from __future__ import annotations

from playwright.sync_api import expect

from tests.faults import FaultProxy
from tests.loading.conftest import Tab


def test_stored_models_are_listed_with_their_sizes_checked_and_deleted(tab: Tab, proxy: FaultProxy) -> None:
    tab.load()
    page = tab.page
    # A model that there is none of: the page is there, and nothing is loaded.
    page.goto(f"{proxy.address}/?model=none")
    page.get_by_role("button", name="Stored models").click()
    dialog = page.get_by_role("dialog", name="Stored models")
    item = dialog.get_by_role("listitem")
    expect(item).to_contain_text("Random bytes")
    expect(item).to_contain_text("noise, 4.2 MB")
    dialog.get_by_role("button", name="Check noise").click()
    expect(dialog.get_by_role("status")).to_contain_text("noise is undamaged.")
    dialog.get_by_role("button", name="Delete noise").click()
    expect(dialog.get_by_role("status")).to_contain_text("noise was deleted. Nothing is stored.")
    expect(item).to_have_count(0)
    assert tab.stored() == {}
