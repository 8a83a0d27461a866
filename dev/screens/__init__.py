"""Pictures of the status page, and a headless Chromium for them and for tests."""
