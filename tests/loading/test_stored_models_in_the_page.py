"""What this browser keeps, in the page's list of models."""

from __future__ import annotations

from playwright.sync_api import expect

from tests.faults import FaultProxy
from tests.loading.conftest import Tab


def test_stored_models_are_listed_with_their_sizes_checked_and_deleted(tab: Tab, proxy: FaultProxy) -> None:
    tab.load()
    page = tab.page
    # A model that there is none of: the page is there, and nothing is loaded.
    page.goto(f"{proxy.address}/?model=none")
    page.get_by_role("button", name="Model:").click()
    dialog = page.get_by_role("dialog", name="Models")
    item = dialog.get_by_role("listitem").filter(has_text="Random bytes")
    expect(item).to_contain_text("noise · kept in this browser")
    expect(item).to_contain_text("4.2 MB")
    expect(dialog.get_by_role("status")).to_contain_text("This browser keeps")
    dialog.get_by_role("button", name="Check noise").click()
    expect(dialog.get_by_role("status")).to_contain_text("noise is undamaged.")
    dialog.get_by_role("button", name="Delete noise").click()
    expect(dialog.get_by_role("status")).to_have_text("To use noise again, 4.2 MB would have to be downloaded.")
    assert tab.stored() != {}
    dialog.get_by_role("button", name="Delete for good noise").click()
    expect(dialog.get_by_role("status")).to_contain_text("noise was deleted from this browser.")
    expect(dialog.get_by_role("button", name="Delete noise")).to_have_count(0)
    assert tab.stored() == {}
