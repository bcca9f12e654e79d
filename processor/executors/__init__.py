"""Where handlers run: threads, one event loop, or child processes."""
