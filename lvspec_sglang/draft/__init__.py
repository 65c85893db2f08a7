"""The draft model: its own KV view, its prefill on kept tokens, its K-step chain."""
