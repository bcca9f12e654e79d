"""How things look in the log: topics, records, headers; and the catalogues of settings and metrics."""
