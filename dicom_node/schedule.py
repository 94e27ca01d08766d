"""APScheduler: every timed duty of the node, one line each; carries no clinical work: duties read rows and enqueue."""

import logging
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime

from apscheduler.executors.pool import ThreadPoolExecutor
from apscheduler.jobstores.base import JobLookupError
from apscheduler.schedulers import SchedulerNotRunningError
from apscheduler.schedulers.background import BackgroundScheduler

#: seconds between two looks at the rows
LOOK_EVERY = 0.25
_SWEEP = "enqueue what is open and due"


Duty = Callable[[], object]


class Schedule:
    """The node's clock. A duty never runs twice at once, and one that was held up runs once, not once for each miss."""

    def __init__(self, *, close_quiet_studies: Duty, sweep: Duty, forget_finished_workflows: Duty) -> None:
        logging.getLogger("apscheduler").setLevel(logging.ERROR)
        self._clock = BackgroundScheduler(
            executors={"default": ThreadPoolExecutor(4)},
            job_defaults={"coalesce": True, "max_instances": 1, "misfire_grace_time": None},
            timezone="UTC",
        )
        self._clock.add_job(close_quiet_studies, "interval", seconds=LOOK_EVERY, id="close quiet studies")
        self._clock.add_job(sweep, "interval", seconds=LOOK_EVERY, id=_SWEEP)
        self._clock.add_job(forget_finished_workflows, "interval", minutes=10, id="forget finished workflows")

    def sweep_now(self) -> None:
        """Let the sweep run at once; harmless when the clock has stopped."""
        with suppress(JobLookupError, SchedulerNotRunningError):
            self._clock.modify_job(_SWEEP, next_run_time=datetime.now(UTC))

    def start(self) -> None:
        """Start the clock."""
        self._clock.start()

    def stop(self) -> None:
        """Stop the clock and wait for the duty that runs."""
        self._clock.shutdown(wait=True)
