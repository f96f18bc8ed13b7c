"""`dbops init`: the files of a user's project."""

from __future__ import annotations

import shutil
from pathlib import Path

import click

from dbops.cli.main import common
from dbops.cli.output import Output
from dbops.errors import UsageError
from dbops.sql import shipped

TOML = """\
# dbops: settings of this project. Every key can be given as DBOPS_<KEY> in the environment, too.
# url = "postgresql://app@localhost:5432/app"     # else DATABASE_URL, PG*, or the embedded server
migrations = "migrations/sql"
policies = "policies"
schemas = [{schemas}]                             # whose drift `migrate check` looks at
# table = "public.schema_migrations"
# lock_timeout = "3s"                             # how long a statement waits for a lock, each time
# wait = "5min"                                   # how long a runner waits for another

# [env.prod]
# confirm = "prod"                                # the word that destructive commands want
"""
# without its comment signs it is a definition that applies and stands the attack
POLICIES = """\
# Row level security: whose the rows of a table are. What is not said here is not allowed.
#   dbops policy plan     what differs, as SQL         dbops policy apply    make it so
#   dbops policy attack   prove it on a scratch server
# A database that has policies already: dbops policy export --to policies
version = 1
# On Supabase a session's user is auth.uid(), and acts as the role authenticated: that is the default. Elsewhere: a
# setting of the application, and a role that a migration makes (create role authenticated nologin).
# auth = "guc:app.user_id"
# user_role = "authenticated"

# Notes are their author's: four verbs, and nobody gives one away.
# [table."public.notes"]
# owner = "user_id"
# immutable = ["user_id"]

# Articles are their author's, and what is published may be read by everybody signed in.
# [table."public.articles"]
# owner = "author_id"
# immutable = ["author_id"]
# shared = { when = "published", verbs = ["select"], to = ["authenticated"] }

# Documents belong to a team: members read, editors write.
# [table."public.documents"]
# tenant = { column = "team_id", members = "public.members" }
# roles = { insert = ["editor"], update = ["editor"], delete = ["editor"] }
# immutable = ["team_id"]

# Who is in a team: a user reads his own rows, the application alone writes.
# [table."public.members"]
# owner = "user_id"
# verbs = ["select"]

# What no user may touch at all.
# [table."public.audit"]
# closed = true
"""
NEXT = {
    False: """
next: dbops migrate new NAME, dbops migrate up
then: say in policies/app.toml whose the rows are; dbops policy apply, dbops policy attack""",
    True: "\nnext: dbops migrate up, dbops policy apply, dbops policy attack",
}
IGNORED = ".dbops/\nbackups/*\n!backups/.gitkeep\n"


@click.command()
@click.argument("folder", type=click.Path(file_okay=False, path_type=Path), default=Path())
@click.option(
    "--memory/--no-memory", default=None, help="With or without the memory schema (asks on a terminal; else without)."
)
@click.option("--dry-run", is_flag=True, help="Show what would be written.")
@common
def command(out: Output, folder: Path, memory: bool | None, dry_run: bool) -> None:
    """Scaffold a project: dbops.toml, migrations/sql, policies, backups.

    Without the memory schema policies/app.toml holds examples, all of them comments.

    \b
    dbops init --memory           with the memory schema
    dbops init shop --no-memory   in the folder shop, empty
    """
    root = folder.absolute()
    if (root / "dbops.toml").exists():
        raise UsageError(f"{root / 'dbops.toml'} is there already", hint="nothing was written; remove it to begin anew")
    if memory is None:
        import sys

        memory = (
            sys.stdin is not None
            and sys.stdin.isatty()
            and click.confirm("With the memory schema (users' memories, chats, embeddings)?", err=True)
        )
    files = plan(root, memory)
    clash = [path for path in files if path.exists() and path.name != ".gitignore"]
    if clash:
        raise UsageError(f"{clash[0]} is there already", hint="nothing was written")
    if not dry_run:
        write(files)
    names = [str(path.relative_to(root)) for path in files]
    verb = "would write" if dry_run else "wrote"
    after = "" if dry_run else NEXT[memory]
    out.result({"files": names}, "\n".join(f"{verb} {name}" for name in names) + after)


def plan(root: Path, memory: bool) -> dict[Path, str | Path]:
    """The files of a new project: their texts, or the shipped files that they are copied from."""
    schemas = '"public", "auth"' if memory else '"public"'
    files: dict[Path, str | Path] = {root / "dbops.toml": TOML.format(schemas=schemas), root / ".gitignore": IGNORED}
    files |= {root / name / ".gitkeep": "" for name in ("migrations/sql", "backups")}
    if not memory:
        return files | {root / "policies" / "app.toml": POLICIES}
    for name in ("migrations/sql", "policies"):
        files |= {
            root / name / path.name: path
            for path in sorted(shipped(name).glob("*.*"))
            if path.suffix in (".sql", ".toml")
        }
    return files


def write(files: dict[Path, str | Path]) -> None:
    """Write the files; an existing .gitignore gets the lines that it lacks."""
    for path, content in files.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, Path):
            shutil.copyfile(content, path)
        elif path.name == ".gitignore" and path.exists():
            present = path.read_text(encoding="utf-8")
            path.write_text(
                present.rstrip("\n") + "\n" + content if IGNORED not in present else present, encoding="utf-8"
            )
        else:
            path.write_text(content, encoding="utf-8")
