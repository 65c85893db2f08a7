"""The accept rule: which drafted tokens are committed. Pure tensor code, no SGLang."""
