# SPDX-License-Identifier: MIT
"""Secrets on the test pages: shown once, never in a URL."""

from __future__ import annotations

from playwright.sync_api import Page, expect

from tests.browser.hall import Hall


def send(page: Page, button: str, **fields: str) -> None:
    """Fill in a test form and submit it."""
    for label, value in fields.items():
        page.get_by_label(label, exact=True).fill(value)
    page.get_by_role("button", name=button, exact=True).click()
    expect(page.get_by_role("heading", name="Result")).to_be_visible()


def first_result(page: Page) -> str:
    """Return the first part of a result, as base64."""
    return page.locator("#part-1-base64").inner_text()


def test_encryption(hall: Hall) -> None:
    """A decrypted plaintext is folded and in no URL."""
    hall.create("boxes", "AES-256-GCM")
    desk = hall.seated("ada")
    page = desk.open("/ui/keys/boxes/try/encrypt")
    send(page, "Encrypt", Plaintext="the third oak")
    desk.check()
    ciphertext = first_result(page)
    page.get_by_role("link", name="Decrypt", exact=True).click()
    send(page, "Decrypt", Ciphertext=ciphertext)

    shown = page.get_by_text("the third oak")
    expect(shown).to_be_hidden()
    page.get_by_text("Plaintext, 13 bytes").click()
    expect(shown).to_be_visible()
    assert page.url.endswith("/try/decrypt")
    desk.check()


def test_encapsulation(hall: Hall) -> None:
    """Hybrid encapsulation and decapsulation give the same secret."""
    hall.create("mailbox", "MLKEM768-X25519-SHA3-256")
    desk = hall.seated("ada")
    page = desk.open("/ui/keys/mailbox/try/encapsulate")
    send(page, "Encapsulate")
    desk.check()
    encapsulation = first_result(page)
    secret = page.locator("#part-2-base64").text_content()
    page.get_by_role("link", name="Decapsulate", exact=True).click()
    send(page, "Decapsulate", Encapsulation=encapsulation)

    assert secret
    assert secret == page.locator("#part-1-base64").text_content()
    desk.check()
