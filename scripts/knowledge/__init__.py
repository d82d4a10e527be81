"""The knowledge base as data: typed catalogs, and what is computed and checked from them."""
