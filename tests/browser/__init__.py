"""The pages in a real browser.

A package, so that what its tests share ends with them: playwright keeps an event loop running as long as it is open.
"""
