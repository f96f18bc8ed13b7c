"""Who the user of a session is, as an expression: evaluated once a statement, NULL for nobody, and then no row."""

from __future__ import annotations

from psycopg import sql

from dbops.policy.model import Auth

# what no uuid can be cast to
_NEVER_A_UUID = {
    "smallint", "integer", "bigint", "numeric", "real", "double precision", "boolean", "date", "bytea", "json", "jsonb",
    "timestamp with time zone", "timestamp without time zone", "time with time zone", "time without time zone", "interval",
    "inet", "cidr", "oid", "xml",
}  # fmt: skip


def verbatim(text: str) -> sql.SQL:
    """A text of the definitions, or a type as the catalog prints it, as it stands."""
    return sql.SQL(text)


def base_type(type_: str) -> str:
    """The type without its modifier; all texts of variable length are one: `character varying(40)` is `text`."""
    head, _, rest = type_.partition("(")
    plain = f"{head.strip()}{rest.partition(')')[2]}"
    return "text" if plain in ("text", "character varying") else plain


def identity(auth: Auth, type_: str) -> sql.Composed:
    """`(select auth.uid())`, of the type of the column that it is compared with (format_type).

    The subselect is evaluated once and not for each row, and an unset or emptied setting is NULL.
    Raises ValueError where the type cannot be one of a user's id.
    https://www.postgresql.org/docs/current/sql-createpolicy.html
    """
    plain = base_type(type_)
    cast_to = "text" if plain == "text" else type_
    if not auth.supabase:
        setting = sql.SQL("nullif(pg_catalog.current_setting({}, true), '')").format(sql.Literal(auth.setting))
        return sql.SQL("(select {}::{})").format(setting, verbatim(cast_to))
    if plain == "uuid":
        return sql.SQL("(select auth.uid())").format()
    if plain in _NEVER_A_UUID or plain.endswith("[]"):
        raise ValueError(f"it is {type_}, and auth.uid() is a uuid")
    return sql.SQL("(select auth.uid()::{})").format(verbatim(cast_to))
