"""Types, and values for those that PostgreSQL and pgvector bring."""

from __future__ import annotations

import json
import string
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from random import Random
from typing import Literal

Kind = Literal["base", "enum", "domain", "composite", "array", "range", "multirange"]


@dataclass(frozen=True)
class Type:
    """A column's type. `sql` is how a cast writes it, with its modifier: `character varying(20)`."""

    name: str
    kind: Kind = "base"
    sql: str = ""
    category: str = "U"
    modifier: int = -1
    labels: tuple[str, ...] = ()
    """An enum's values; a domain's values that its checks were seen to accept."""
    inner: Type | None = None
    """An array's element, a range's subtype, a multirange's range, a domain's base."""
    fields: tuple[Type, ...] = ()
    checks: tuple[str, ...] = ()
    not_null: bool = False


Fresh = Callable[[Type, Random], str]

TEXTS = (
    "alpha",
    "",
    "Ann O'Neil",
    "ann@example.com",
    'back\\slash, "quoted"',
    "naïve 日本 😀",
    " two\tlines\n ",
    "ABC",
    "12345",
    "https://example.com/a?b=c",
    "a-b_c.d",
    "{}",
    "2024-02-29",
    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
)
_WORDS = ("amber", "birch", "cedar", "delta", "ember", "fjord", "grove", "heron")
_START = datetime(2000, 1, 1)
_LETTERS = string.ascii_lowercase + string.digits


# --- limits that a modifier sets -----------------------------------------------------------------


def limit(kind: Type) -> int | None:
    """How many characters, bits or dimensions a value may have; None where nothing says so."""
    if kind.name in ("varchar", "bpchar"):
        return kind.modifier - 4 if kind.modifier >= 4 else None
    if kind.name in ("name", "char"):
        return {"name": 63, "char": 1}[kind.name]
    sized_by_modifier = ("bit", "varbit", "vector", "halfvec", "sparsevec")
    return kind.modifier if kind.name in sized_by_modifier and kind.modifier > 0 else None


def precision(kind: Type) -> tuple[int, int] | None:
    """Digits and scale of a `numeric(p, s)`; None where it has no limits. The scale may be negative."""
    if kind.modifier < 4:
        return None
    packed = kind.modifier - 4
    return packed >> 16 & 0xFFFF, ((packed & 0x7FF) ^ 0x400) - 0x400


# --- base types ----------------------------------------------------------------------------------


def _word(_: Type, rng: Random) -> str:
    return f"{rng.choice(_WORDS)} {rng.choice(_WORDS)} {rng.randrange(10**6)}"


def _text(kind: Type, rng: Random) -> str:
    most = limit(kind)
    if most is None or most >= 24:
        return _word(kind, rng)
    return "".join(rng.choice(_LETTERS) for _ in range(rng.randint(max(1, most // 2), most)))


def _whole(bits: int) -> Fresh:
    return lambda _, rng: str(rng.randint(1, 2 ** min(bits - 1, 20) - 1))


def _numeric(kind: Type, rng: Random) -> str:
    digits, scale = precision(kind) or (9, 3)
    whole = rng.randrange(10 ** min(digits, 18))
    return f"{Decimal(whole).scaleb(-scale):f}"


def numerics(kind: Type) -> tuple[str, ...]:
    limits = precision(kind)
    if limits is None:
        return ("1", "0", "-1.50", "0.5", "12345678901234567890.123456789", "100")
    digits, scale = limits
    top = "9" * digits
    if scale <= 0:
        return ("0", top + "0" * -scale, "-" + top + "0" * -scale)
    whole, part = (top[:-scale], top[-scale:]) if digits > scale else ("", top.rjust(scale, "0"))
    edge = f"{whole or 0}.{part}"
    return ("0", edge, f"-{edge}", "0." + "0" * (scale - 1) + "1", *(("1",) if whole else ()))


def moment(rng: Random) -> datetime:
    return _START + timedelta(microseconds=rng.randrange(35 * 365 * 86_400 * 10**6))


def _json(_: Type, rng: Random) -> str:
    value = {"n": rng.randrange(10**6), "tags": [rng.choice(_WORDS), None], "ü": {"ok": True}}
    return json.dumps(value, ensure_ascii=False)


def hexadecimal(rng: Random, size: int) -> str:
    return rng.randbytes(size).hex()


def _mac(size: int) -> Fresh:
    return lambda _, rng: ":".join(f"{byte:02x}" for byte in rng.randbytes(size))


def bits(kind: Type, rng: Random) -> str:
    size = limit(kind) or (1 if kind.name == "bit" else rng.randint(1, 16))
    return "".join(rng.choice("01") for _ in range(size))


def _floats(rng: Random, size: int) -> list[float]:
    return [rng.randint(1, 99) / 100 for _ in range(size)]


def _vector(kind: Type, rng: Random) -> str:
    return dense(rng, limit(kind) or 3)


def dense(rng: Random, size: int) -> str:
    return "[" + ",".join(map(str, _floats(rng, size))) + "]"


def sparse(rng: Random, size: int) -> str:
    places = sorted(rng.sample(range(1, size + 1), min(size, 3)))
    return "{" + ",".join(f"{place}:{rng.randint(1, 9)}" for place in places) + f"}}/{size}"


def _xy(rng: Random) -> str:
    return f"({rng.randrange(1000)},{rng.randrange(1000)})"


def _shape(form: str) -> Fresh:
    return lambda _, rng: form.format(*(_xy(rng) for _ in range(4)), rng.randint(1, 99))


def _one_of(*values: str) -> tuple[tuple[str, ...], Fresh]:
    return values, lambda _, rng: rng.choice(values)


_JSONS = ("{}", '{"a": [1, null, "ü"]}', "[]", "null", '"text"', "1.50", "true")
_STAMPS = (
    "2024-02-29 12:34:56.789",
    "1970-01-01 00:00:00",
    "1999-12-31 23:59:59.999999",
    "2100-01-01 00:00:00",
)

BASE: dict[str, tuple[tuple[str, ...], Fresh]] = {
    "bool": _one_of("true", "false"),
    "int2": (("1", "0", "-1", "7", "32767", "-32768"), _whole(16)),
    "int4": (("1", "0", "-1", "7", "2147483647", "-2147483648"), _whole(32)),
    "int8": (("1", "0", "-1", "7", "9223372036854775807", "-9223372036854775808"), _whole(64)),
    "float4": (("1", "0", "-1.5", "0.25", "3.14159"), lambda _, rng: str(rng.randrange(10**5) / 8)),
    "float8": (
        ("1", "0", "-1.5", "0.25", "0.1", "1e+300"),
        lambda _, rng: str(rng.randrange(10**9) / 8),
    ),
    "numeric": ((), _numeric),
    "money": (("0", "12.34", "-5.00"), lambda _, rng: f"{rng.randrange(10**6) / 100:.2f}"),
    "text": (TEXTS, _text),
    "varchar": (TEXTS, _text),
    "bpchar": (TEXTS, _text),
    "name": (TEXTS, _text),
    "char": (("a", "Z"), lambda _, rng: rng.choice(string.ascii_letters)),
    "bytea": (
        ("\\x00ff", "\\x", "\\xdeadbeef"),
        lambda _, rng: "\\x" + hexadecimal(rng, rng.randint(1, 24)),
    ),
    "uuid": (
        ("00000000-0000-0000-0000-000000000000",),
        lambda _, rng: str(uuid.UUID(bytes=rng.randbytes(16), version=4)),
    ),
    "date": (
        ("2024-02-29", "1970-01-01", "1999-12-31", "2100-01-01", "0044-03-15 BC"),
        lambda _, rng: f"{moment(rng):%Y-%m-%d}",
    ),
    "time": (("12:34:56.789", "00:00:00", "23:59:59.999999"), lambda _, rng: f"{moment(rng):%H:%M:%S.%f}"),
    "timetz": (("12:34:56+02", "00:00:00+00"), lambda _, rng: f"{moment(rng):%H:%M:%S}+01"),
    "timestamp": (_STAMPS, lambda _, rng: str(moment(rng))),
    "timestamptz": (tuple(stamp + "+00" for stamp in _STAMPS), lambda _, rng: f"{moment(rng)}+00"),
    "interval": (
        ("1 day", "00:00:00", "-3 months 2 days 01:02:03.5", "1 year"),
        lambda _, rng: f"{rng.randrange(100)} days {rng.randrange(10**5)} seconds",
    ),
    "json": (_JSONS, _json),
    "jsonb": (_JSONS, _json),
    "jsonpath": _one_of("$.a", "$[*] ? (@ > 1)"),
    "xml": (("<a>x</a>", '<b c="1"/>'), lambda _, rng: f"<a>{rng.randrange(10**6)}</a>"),
    "inet": (
        ("127.0.0.1", "::1", "192.168.1.5/24"),
        lambda _, rng: f"10.{rng.randrange(256)}.{rng.randrange(256)}.{rng.randrange(256)}",
    ),
    "cidr": (
        ("10.0.0.0/8", "2001:db8::/32"),
        lambda _, rng: f"10.{rng.randrange(256)}.{rng.randrange(256)}.0/24",
    ),
    "macaddr": (("08:00:2b:01:02:03",), _mac(6)),
    "macaddr8": (("08:00:2b:01:02:03:04:05",), _mac(8)),
    "bit": ((), bits),
    "varbit": ((), bits),
    "tsvector": (("'fat':2 'cat':3", ""), lambda _, rng: f"'{rng.choice(_WORDS)}':{rng.randint(1, 99)}"),
    "tsquery": (("'fat' & 'cat'",), lambda _, rng: f"'{rng.choice(_WORDS)}' & !'{rng.choice(_WORDS)}'"),
    "point": (("(1,2)",), _shape("{0}")),
    "lseg": (("[(0,0),(1,1)]",), _shape("[{0},{1}]")),
    "box": (("(1,1),(0,0)",), _shape("{0},{1}")),
    "path": (("[(0,0),(1,1)]", "((0,0),(1,1))"), _shape("[{0},{1},{2}]")),
    "polygon": (("((0,0),(1,1),(1,0))",), _shape("({0},{1},{2})")),
    "circle": (("<(0,0),1>",), _shape("<{0},{4}>")),
    "line": (("{1,2,3}",), lambda _, rng: f"{{1,{rng.randint(1, 99)},{rng.randint(1, 99)}}}"),
    "oid": (("1", "4294967295"), lambda _, rng: str(rng.randrange(2**31))),
    "xid": (("1",), lambda _, rng: str(rng.randrange(2**31))),
    "xid8": (("1",), lambda _, rng: str(rng.randrange(2**62))),
    "cid": (("1",), lambda _, rng: str(rng.randrange(2**31))),
    "tid": (("(0,1)",), lambda _, rng: f"({rng.randrange(1000)},{rng.randint(1, 99)})"),
    "pg_lsn": (("0/0",), lambda _, rng: f"{rng.randrange(999):X}/{rng.randrange(2**31):X}"),
    "pg_snapshot": _one_of("1:1:", "10:20:10,14"),
    "txid_snapshot": _one_of("1:1:", "10:20:10,14"),
    "int2vector": _one_of("1 2", "3"),
    "oidvector": _one_of("1 2", "3"),
    "regclass": _one_of("pg_catalog.pg_class", "pg_catalog.pg_type"),
    "regtype": _one_of("integer", "text"),
    "regproc": _one_of("pg_catalog.now", "pg_catalog.version"),
    "regprocedure": _one_of("pg_catalog.abs(integer)", "pg_catalog.now()"),
    "regoper": _one_of("pg_catalog.||/", "pg_catalog.|/"),
    "regoperator": _one_of("pg_catalog.+(integer,integer)", "pg_catalog.=(text,text)"),
    "regnamespace": _one_of("pg_catalog", "information_schema"),
    "regrole": _one_of("pg_monitor", "pg_read_all_stats"),
    "regcollation": _one_of('pg_catalog."C"', 'pg_catalog."POSIX"'),
    "regconfig": _one_of("pg_catalog.simple", "pg_catalog.english"),
    "regdictionary": _one_of("pg_catalog.simple", "pg_catalog.english_stem"),
    "vector": ((), _vector),
    "halfvec": ((), _vector),
    "sparsevec": ((), lambda kind, rng: sparse(rng, limit(kind) or 5)),
}
_BY_CATEGORY = {"S": "text", "N": "numeric", "D": "timestamptz", "B": "bool", "I": "inet", "G": "point"}
# what types of extensions that are unknown here often read: hstore, ltree, cube, geometry …
_GUESSES = _one_of("", "0", "1", "a", "{}", "[]", "()", "(1,2)", "a=>1", "a.b", "POINT(1 2)", "[1,2]")


def base(kind: Type) -> tuple[tuple[str, ...], Fresh]:
    return BASE.get(kind.name) or BASE.get(_BY_CATEGORY.get(kind.category, "")) or _GUESSES
