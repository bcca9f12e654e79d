"""A transactional outbox: a job is stored with the rows that it is about, in one transaction of your database, and sent
to Kafka after that has committed. Needs the extra `outbox`.

    with Session(engine) as session:
        session.add(order)
        import_file.enqueue(Import(...), session=session)
        session.commit()                                  # both, or neither

    processor outbox run --database postgresql://...      # sends what was committed, once per row

`table` is what is stored, `relay` sends it.
"""
