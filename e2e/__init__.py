"""End-to-end tests: a real server, a real Chromium, and what a person does on the page."""
