"""The `processor` command: one module per noun, each imported only when its command runs."""
