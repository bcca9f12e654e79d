"""The examination of a cluster, its topics and its workers: what is wrong, and what to do about it.

subject    what is looked at, and how a finding is said
checks     the checks, in their order
"""

from processor.admin.doctor.checks import CHECKS, examine
from processor.admin.doctor.subject import DoctorContext, Finding, Verdict

__all__ = ["CHECKS", "DoctorContext", "Finding", "Verdict", "examine"]
