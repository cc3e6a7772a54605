"""States that add up over a document's tokens, and become weights at any moment."""

from hypergen.generators.fast_weights.document_state import DocumentState
from hypergen.generators.fast_weights.generative_adapter import GenerativeAdapter

__all__ = ["DocumentState", "GenerativeAdapter"]
