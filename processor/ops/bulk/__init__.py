"""One action on many jobs: exactly those that a filter meant at one moment, by a job of our own that goes on where it
was stopped.

plan      which jobs are meant, fixed once: changes nothing
acting    doing it to a page of them
job       the job type that walks through the pages, and how it is started
worker    what runs such jobs: a small worker beside the dashboard
"""
