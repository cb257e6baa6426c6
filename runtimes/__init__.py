"""Inference engines behind one interface, and the screener. A library is imported when its engine is opened."""
