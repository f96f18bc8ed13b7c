"""What makes a machine take backups every night: systemd units, a crontab line or Kubernetes CronJobs, as texts. Pure.

Every form runs the same commands and takes what is secret, and all settings, from one file of variables.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal
from urllib.parse import urlsplit

from dbops.errors import UsageError

Kind = Literal["systemd", "cron", "kubernetes"]
KINDS: tuple[Kind, ...] = ("systemd", "cron", "kubernetes")
DAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
VARIABLES = "backup.env"
# what is damaged is found before anything is removed: verify stands before prune
NIGHTLY = ("create --tier auto", "verify --all --sample {sample:g}", "prune --yes")
WEEKLY = ("drill latest",)


@dataclass(frozen=True)
class When:
    """Times of day as HH:MM by the machine's clock (Kubernetes: UTC); the drill's day of the week."""

    nightly: str = "02:30"
    drill: str = "04:30"
    drill_day: str = "sun"


@dataclass(frozen=True)
class Place:
    """Where it runs: the project's folder (it has dbops.toml), the program, the variables' file, the container image."""

    folder: str
    program: str = "dbops"
    variables: str = "/etc/dbops/backup.env"
    image: str = "dbops"


@dataclass(frozen=True)
class Unit:
    """A file to be installed: its name and its text."""

    name: str
    text: str


@dataclass(frozen=True)
class Heartbeat:
    """Two URLs, each pinged at the start (`/start`), at success, and at a failure (`/fail`): a drill that works must
    not make up for a night without a backup."""

    nightly: str = ""
    drill: str = ""


@dataclass(frozen=True)
class _Job:
    """Commands that run one after the other until one fails; `ping` tells the monitor."""

    name: str
    title: str
    commands: tuple[str, ...]
    ping: str
    time: str
    day: str = ""

    @property
    def cron(self) -> str:
        """The first five fields of a crontab's line."""
        hour, minute = map(int, self.time.split(":"))
        return f"{minute} {hour} * * {DAYS.index(self.day) if self.day else '*'}"

    @property
    def shell(self) -> str:
        """One line of sh, which ends with the exit code of the command that failed."""
        return f"{self.ping} start; {' && '.join(self.commands)}; code=$?; {self.ping} $code; exit $code"


def schedule(
    kind: Kind, place: Place, when: When, *, heartbeat: Heartbeat | None = None, sample: float = 0.05
) -> tuple[Unit, ...]:
    """The files for a scheduler, the file of variables last. Nothing secret is in them but in that one.

    `sample` is the part of the store that is read every night. Raises UsageError for a time, a day, a path or a URL
    that the files could not carry.
    """
    heartbeat = heartbeat or Heartbeat()
    _check(place, when, heartbeat)
    program = f"{place.program} backup"
    nightly = tuple(f"{program} {text.format(sample=sample)}" for text in NIGHTLY)
    drill = tuple(f"{program} {text}" for text in WEEKLY)
    ping = f"{program} ping"
    jobs = (
        _Job("dbops-backup", "Backup of the database by dbops", nightly, ping, when.nightly),
        _Job("dbops-drill", "A backup restored to prove it", drill, f"{ping} --drill", when.drill, when.drill_day),
    )
    make = {"systemd": _systemd, "cron": _cron, "kubernetes": _kubernetes}[kind]
    return (*make(place, jobs), _variables(place, heartbeat, kubernetes=kind == "kubernetes"))


def _check(place: Place, when: When, heartbeat: Heartbeat) -> None:
    for time in (when.nightly, when.drill):
        if not re.fullmatch(r"([01]\d|2[0-3]):[0-5]\d", time):
            raise UsageError(f"{time!r} is no time of day", hint="write 02:30; nothing was written")
    if when.drill_day not in DAYS:
        raise UsageError(f"{when.drill_day!r} is no day", hint=f"one of {', '.join(DAYS)}; nothing was written")
    for text in (place.folder, place.program, place.variables, place.image):
        # systemd, sh, cron and YAML each give other characters a meaning
        if not re.fullmatch(r"[\w@./:+=,-]+", text):
            raise UsageError(
                f"{text!r} cannot stand in the files of a scheduler",
                hint="letters, digits and @ . / : + = , _ - can; choose another path. Nothing was written",
            )
    for url in filter(None, (heartbeat.nightly, heartbeat.drill)):
        if urlsplit(url).scheme not in ("http", "https") or re.search(r"[\s'\"\\]", url):
            raise UsageError("a heartbeat is no http(s) URL", hint="nothing was written")


def _variables(place: Place, heartbeat: Heartbeat, *, kubernetes: bool) -> Unit:
    # kubectl takes quotes for a part of the value; to sh an & without them ends the line
    quote = "" if kubernetes else "'"

    def line(name: str, value: str, *, set_: bool = True) -> str:
        return f"{'' if set_ else '#'}{name}={quote}{value}{quote}\n"

    return Unit(
        VARIABLES,
        f"# {place.variables}: secrets, so only root may read it (chmod 600)\n"
        "# the database; where tables are under FORCE ROW LEVEL SECURITY the role must be a superuser or have BYPASSRLS\n"
        + line("DATABASE_URL", "")
        + "# a URL that was forgotten is an error, and not a backup of an empty embedded server\n"
        + line("DBOPS_NO_EMBEDDED", "1")
        + "# where the backups lie, a folder or s3://bucket/prefix, and the bucket's keys\n"
        # in a container a folder would go with it
        + line("DBOPS_STORE", "s3://bucket/prefix", set_=kubernetes)
        + line("AWS_ACCESS_KEY_ID", "", set_=False)
        + line("AWS_SECRET_ACCESS_KEY", "", set_=False)
        + "# pinged at the start (/start), at success, and at a failure (/fail)\n"
        + line("DBOPS_HEARTBEAT", heartbeat.nightly, set_=bool(heartbeat.nightly))
        + line("DBOPS_DRILL_HEARTBEAT", heartbeat.drill, set_=bool(heartbeat.drill)),
    )


# --- systemd: https://www.freedesktop.org/software/systemd/man/latest/systemd.timer.html ----------


def _systemd(place: Place, jobs: tuple[_Job, ...]) -> tuple[Unit, ...]:
    return tuple(unit for job in jobs for unit in (_service(place, job), _timer(job)))


def _service(place: Place, job: _Job) -> Unit:
    commands = "".join(f"ExecStart={each}\n" for each in job.commands)
    return Unit(
        f"{job.name}.service",
        f"""\
[Unit]
Description={job.title}
Wants=network-online.target
After=network-online.target

[Service]
Type=oneshot
WorkingDirectory={place.folder}
EnvironmentFile={place.variables}
UMask=0077
Nice=10
IOSchedulingClass=idle
TimeoutStartSec=infinity
ExecStartPre=-{job.ping} start
{commands}\
# also where a command was killed: it reads SERVICE_RESULT, which systemd sets
ExecStopPost=-{job.ping}
""",
    )


def _timer(job: _Job) -> Unit:
    day = f"{job.day.capitalize()} " if job.day else ""
    return Unit(
        f"{job.name}.timer",
        f"""\
[Unit]
Description=When {job.name}.service runs

[Timer]
OnCalendar={day}*-*-* {job.time}:00
RandomizedDelaySec=10min
# a run that the machine slept through is made up for
Persistent=true

[Install]
WantedBy=timers.target
""",
    )


# --- cron: https://man7.org/linux/man-pages/man5/crontab.5.html -----------------------------------


def _cron(place: Place, jobs: tuple[_Job, ...]) -> tuple[Unit, ...]:
    start = f"umask 077 && cd {place.folder} && set -a && . {place.variables} && set +a"
    lines = (f"{job.cron} {start} && {{ {job.shell}; }}\n" for job in jobs)
    return (Unit("crontab", "# for crontab -e: a backup every night, and one restored every week\n" + "".join(lines)),)


# --- Kubernetes: https://kubernetes.io/docs/concepts/workloads/controllers/cron-jobs/ --------------


def _kubernetes(place: Place, jobs: tuple[_Job, ...]) -> tuple[Unit, ...]:
    head = f"""\
# The image has dbops in it (pip install 'pg-dbops[embedded,s3]'); the store is a bucket, for a container's folder is
# gone with it. First: kubectl create secret generic dbops-backup --from-env-file={VARIABLES}
"""
    return (Unit("dbops-backup.yaml", head + "---\n".join(_cron_job(place, job) for job in jobs)),)


def _cron_job(place: Place, job: _Job) -> str:
    return f"""\
apiVersion: batch/v1
kind: CronJob
metadata:
  name: {job.name}
spec:
  schedule: "{job.cron}"
  timeZone: Etc/UTC
  concurrencyPolicy: Forbid
  startingDeadlineSeconds: 3600
  jobTemplate:
    spec:
      backoffLimit: 1
      template:
        spec:
          restartPolicy: Never
          containers:
            - name: dbops
              image: {place.image}
              command: ["/bin/sh", "-c"]
              args:
                - {job.shell}
              envFrom:
                - secretRef:
                    name: dbops-backup
              volumeMounts:
                - name: scratch
                  mountPath: /tmp
          volumes:
            - name: scratch
              emptyDir: {{}}
"""
