"""Setting up a store: its first store file, and the editor of its layout."""
