"""States that add up over a document's tokens, and become weights at any moment."""
