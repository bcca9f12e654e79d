"""The mutants: which rule, where it stands, how it is broken, and which test must notice."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Mutant:
    """One rule, broken."""

    name: str
    file: str
    """Below `processor/`."""
    changes: tuple[tuple[str, str], ...]
    """What stands there, each at least once, and what stands there instead."""
    tests: str
    """Names of the tests that must fail, joined by "or"."""


def _mutant(name: str, file: str, tests: str, *changes: tuple[str, str]) -> Mutant:
    return Mutant(name, file, changes, tests)


MUTANTS = [
    _mutant(
        "the epoch does not grow",
        "engine/restore.py",
        "test_epoch_grows_across_workers_and_restarts",
        ("found.epoch = max(found.epoch, meta.epoch + 1)", "found.epoch = 1"),
        ("found.epoch = max(found.epoch, record.epoch + 1)", "pass"),
        ("found.epoch = max(found.epoch, mark.epoch + 1)", "pass"),
    ),
    _mutant(
        "no snapshot at a revoke",
        "engine/ownership.py",
        "test_revoke_flush_commits_under_cooperative_sticky",
        (
            '        fence.heard(membership)\n        self._engine.counters.events["rebalance.revoked"] += 1',
            '        self._engine.counters.events["rebalance.revoked"] += 1',
        ),
    ),
    _mutant(
        "offsets as they are when they are sent",
        "engine/flush.py",
        "test_completions_during_a_flush_belong_to_the_next",
        (
            "for part in batch.parts if part.group == self._group for commit in part.offsets]",
            "for part in batch.parts if part.group == self._group for commit in part.number.offsets(all_lanes=True)]",
        ),
    ),
    _mutant(
        "no new producer after an abort",
        "engine/flush.py",
        "test_every_abort_is_followed_by_a_new_producer_epoch",
        ("        self._rebuild(_cause(error))\n", ""),
    ),
    _mutant(
        "no new producer after a broken connection",
        "engine/flush.py",
        "test_late_commit_frame_shows_nothing_harmful or test_late_offset_frame_does_no_harm",
        ("if self._producer is not None and self._producer.disturbed:", "if False:"),
    ),
    _mutant(
        "no wait before what announces",
        "engine/flush.py",
        "test_no_tombstone_before_its_copies_are_acked",
        (
            "            acks = self._again(producer.wait_acks)\n            self._refuse(acks.failures)",
            "            pass",
        ),
    ),
    _mutant(
        "no wait before the marks",
        "engine/flush.py",
        "test_no_mark_before_the_end_that_it_stands_for_is_acked",
        ("        if seals or batch.watch_all:", "        if batch.watch_all:"),
    ),
    _mutant(
        "the hint passes what is only about to be carried",
        "engine/outbox.py",
        "test_hint_never_passes_an_uncommitted_carry",
        (
            "        carried = self._carried(number)\n",
            "        carried = self._carried(number)\n"
            "        for key, _ in carried:\n            number.live.carried(key, number.checkpoint_end)\n",
        ),
    ),
    _mutant(
        "what was aborted goes to the end",
        "engine/partition_outbox.py",
        "test_aborted_flush_returns_to_the_front_in_order",
        ("self.creates[:0] =", "self.creates +="),
        ("self.announces[:0] =", "self.announces +="),
        ("self.saves[:0] =", "self.saves +="),
    ),
    _mutant(
        "an ended job is not known",
        "engine/intake.py",
        "test_ended_job_seen_again_runs_no_step",
        (" or (view.ended and view.life == job.life)", ""),
        ("(theirs == mine and view.job is not None)", "(theirs == mine and view.job is not None and not view.ended)"),
    ),
    _mutant(
        "a live job is not known",
        "engine/intake.py",
        "test_live_job_read_again_from_its_lane_is_not_started or test_parked_job_read_again",
        ("or (theirs == mine and view.job is not None) ", ""),
    ),
    _mutant(
        "what is saved stays at home in the other lane",
        "engine/intake.py",
        "test_one_id_in_two_lanes_buries_no_live_progress",
        ("        self._move_in(attempt, view)\n", ""),
    ),
    _mutant(
        "a later life goes to the end of its key",
        "engine/intake.py",
        "test_a_later_life_keeps_its_place_among_the_jobs_of_its_key",
        ("        elif again is None and self._has_line(number, job):", "        elif False:"),
    ),
    _mutant(
        "values of parked jobs stay in memory",
        "engine/state.py",
        "test_parked_jobs_are_not_in_memory_and_go_on_whole",
        ("        number.live = LiveTable(self.values.keep)\n", ""),
    ),
    _mutant(
        "dedupe marks are not looked at",
        "engine/intake.py",
        "test_stray_copy_of_a_moved_or_finished_job_never_runs or test_terminal_state_of_a_life_is_final",
        (
            "return number.jobs.recent.get(job.id) >= mine or "
            "(derived and number.marks.seen(job.id, job.life, job.hop))",
            "return False",
        ),
    ),
    _mutant(
        "what was only read after a death is a suspect of the next",
        "engine/dispatch.py",
        "test_one_poison_among_a_thousand_keeps_them_up_for_less_than_a_minute",
        ("in held[: max(left, 0)]:", "in held:"),
    ),
    _mutant(
        "repeats are looked for in their own lane alone",
        "engine/precedents.py",
        "test_a_repeat_in_another_lane_runs_once",
        ("            elif name in self._elsewhere and", "            elif False and"),
    ),
    _mutant(
        "a repeat starts before it is in the log by its own name",
        "engine/precedents.py",
        "test_a_first_record_that_comes_after_its_repeat_in_another_lane",
        ("            outcomes.promote(attempt)\n", "            pass\n"),
    ),
    _mutant(
        "a repeat does not give way",
        "engine/intake.py",
        "test_a_first_record_that_comes_after_its_repeat_in_another_lane",
        ("            self._gives_way(number.jobs.attempts.get(job.id), lane)\n", "            pass\n"),
    ),
    _mutant(
        "retention goes by the lane's end",
        "engine/upkeep.py",
        "test_unfinished_job_is_never_deleted_by_retention",
        (
            "                low, begin = committed[lane].offset, begins.get(lane)",
            "                low, begin = admin.end_offsets([lane])[lane], begins.get(lane)",
        ),
    ),
    _mutant(
        "members are shot",
        "engine/orphan_transactions.py",
        "test_healthy_slot_is_never_shot_nor_its_own or test_slot_that_was_slow_to_hand_over_is_not_shot",
        ("sorted(suspects - here - everywhere)", "sorted(suspects)"),
    ),
    _mutant(
        "members of other queues are shot",
        "engine/orphan_transactions.py",
        "test_a_slot_that_lives_on_with_another_queue_is_not_shot",
        ("sorted(suspects - here - everywhere)", "sorted(suspects - here)"),
    ),
    _mutant(
        "nobody is shot",
        "engine/orphan_transactions.py",
        "test_take_over_is_bounded",
        ("        if not suspects:", "        if True:"),
    ),
    _mutant(
        "the owner restores",
        "engine/restore.py",
        "test_restore_never_blocks_the_owning_thread",
        (
            "        self._requests.post([(number, number.assignment) for number in numbers])",
            "        self._restore_all([(number, number.assignment) for number in numbers])",
        ),
    ),
    _mutant(
        "a lane's end comes from a watermark",
        "engine/fetching.py",
        "test_committed_end_never_passes_an_unread_record",
        (
            "        for partition, offset in batch.ends:\n            lane = lanes.get(partition)",
            "        for partition in list(lanes):\n"
            "            offset = self._engine.broker.admin().end_offsets([partition])[partition]\n"
            "            lane = lanes.get(partition)",
        ),
    ),
    _mutant(
        "a restore reads all history",
        "engine/restore.py",
        "test_idle_number_restores_in_o_live",
        ("            if normal is not None and normal.hint is not None:", "            if False:"),
    ),
    _mutant(
        "checkpoints without a home stay",
        "engine/ownership.py",
        "test_every_checkpoint_has_a_home or test_checkpoint_whose_home_is_finished_is_buried",
        ("*live.homeless(windows), ", ""),
    ),
    _mutant(
        "a held number ends the worker",
        "engine/ownership.py",
        "test_one_bad_partition_stops_only_itself",
        ("        if not self._begin_hold(number, reason):\n            return", "        raise RuntimeError(reason)"),
    ),
    _mutant(
        "a restore ends at the last stable offset",
        "engine/restore.py",
        "test_last_flush_of_the_owner_before_is_never_missed",
        (
            "        ends = admin.end_offsets(sources)",
            "        from processor.broker.base import Isolation\n"
            "        ends = admin.end_offsets(sources, Isolation.COMMITTED)",
        ),
    ),
    _mutant(
        "only lanes that moved are fenced",
        "engine/owned_partition.py",
        "test_flush_that_moves_no_offset_is_fenced_too or test_every_flush_presents",
        ("if not (all_lanes or lane.changed or lane.lane is Lane.NORMAL):", "if not lane.changed:"),
    ),
    _mutant(
        "tombstones leave with the end",
        "engine/partition_outbox.py",
        "test_ended_job_seen_again_runs_no_step",
        (
            "        anew = {saved.out.key for saved in self.saves} if self.burials else ()\n",
            "        self.burials += self.later\n        self.later = []\n        anew = ()\n",
        ),
    ),
    _mutant(
        "the number's mark is not believed",
        "engine/restore.py",
        "test_lost_offsets_rerun_nothing",
        ("            start.offset = max(start.offset, mark.low)", "            pass"),
        ("            start.ranges = tuple(", "            _ = tuple("),
    ),
    _mutant(
        "history without a mark is a first start",
        "engine/restore.py",
        "test_history_without_a_mark_is_held",
        ("        elif Lane.NORMAL in lost and (", "        elif False and ("),
    ),
    _mutant(
        "a refused group holds up the others",
        "engine/outbox.py",
        "test_stale_group_costs_others_one_retry",
        ("                if fence.group in result.refused_groups:", "                if True:"),
    ),
    _mutant(
        "a slow queue takes all there is",
        "engine/queue_load.py",
        "test_one_queue_never_starves_another",
        ("return self.records >= self.max_records or self.size >= self.max_bytes", "return False"),
    ),
    _mutant(
        "handlers run ahead of the log",
        "context/ahead.py",
        "test_a_handler_that_writes_faster_than_the_flush_is_held_back or test_a_handler_that_is_too_far_ahead",
        ("        self._records += 1\n", ""),
    ),
    _mutant(
        "one bad record ends the owner",
        "engine/outcomes.py",
        "(test_one_bad_job_never_ends_the_owner and plain)",
        ("except Exception as error:  # noqa: BLE001", "except ZeroDivisionError as error:  # noqa: BLE001"),
    ),
    _mutant(
        "a replay sends again what a failed commit has sent",
        "admin/replay/run.py",
        "test_a_faulty_broker_makes_no_job_go_twice_or_not_at_all",
        ("[item for item in items if item.job.name not in self._replay.sent]", "list(items)"),
    ),
    _mutant(
        "a replay that goes on reads the log to its new end",
        "admin/replay/plan.py",
        "test_what_comes_later_is_no_part_of_it",
        ("    frozen = replay.frozen\n", "    frozen = None\n"),
    ),
    _mutant(
        "a replay passes its predecessor by",
        "admin/replay/run.py",
        "test_of_two_at_once_the_second_goes_on",
        ('f"{self._spec.target}.replay.{plan.name}"', 'f"{self._spec.target}.replay.{id(self)}"'),
    ),
    _mutant(
        "a leader that lost its place still fires",
        "engine/leadership.py",
        "test_each_instant_is_fired_once_whoever_dies",
        ("offsets=[OffsetCommit(self.place, offset, text)]", "offsets=[]"),
    ),
    _mutant(
        "an instant is done before its job is there",
        "engine/firing.py",
        "test_what_is_done_is_told_after_what_does_it",
        (
            "        load.announces.append(\n            OutRecord(schedules_topic",
            "        load.creates.insert(\n            0, OutRecord(schedules_topic",
        ),
    ),
    _mutant(
        "a run's end is believed before the log was read",
        "engine/runs.py",
        "test_an_answer_waits_for_what_was_committed_when_it_was_asked",
        ("if self._reader.position(run.place) < run.asked:", "if False:"),
    ),
]
