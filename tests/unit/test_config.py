"""Settings: which source wins, what is refused, what other tools' URLs become."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dbops.config import KEYS, Settings, libpq_url, load, search_path_of, seconds
from dbops.embedded import resolve
from dbops.errors import ConfigError

pytestmark = pytest.mark.quick

# the sources of a URL, the strongest first
SOURCES = ["flag", "DBOPS_URL", "DATABASE_URL", "file", "PGHOST"]


def load_in(tmp_path: Path, toml: str = "", environ: dict[str, str] | None = None, **options: object) -> Settings:
    if toml:
        (tmp_path / "dbops.toml").write_text(toml)
    return load(start=tmp_path, environ=environ or {}, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("strongest", range(len(SOURCES)), ids=SOURCES)
def test_the_strongest_source_of_the_url_wins(tmp_path: Path, strongest: int) -> None:
    given_ones = SOURCES[strongest:]
    environ = {name: f"postgresql://{name.lower()}/x" for name in given_ones if name.isupper()}
    settings = load_in(
        tmp_path,
        'url = "postgresql://file/x"' if "file" in given_ones else "",
        environ,
        flags={"url": "postgresql://flag/x" if "flag" in given_ones else None},
    )
    if SOURCES[strongest] == "PGHOST":
        assert (settings.url, settings.url_source) == ("", "PG* variables")
    else:
        assert settings.url == f"postgresql://{SOURCES[strongest].lower()}/x"


def test_nothing_named_means_the_embedded_server_below_the_project(tmp_path: Path) -> None:
    settings = load_in(tmp_path)
    assert (settings.url, settings.url_source, settings.embedded) == (None, "embedded", True)
    assert settings.data_directory == tmp_path / ".dbops" / "pg18"
    assert settings.migrations == tmp_path / "migrations/sql"


@pytest.mark.parametrize("name", ["PGHOST", "PGHOSTADDR", "PGPORT", "PGDATABASE", "PGUSER", "PGSERVICE"])
def test_each_of_libpqs_variables_names_a_server(tmp_path: Path, name: str) -> None:
    assert load_in(tmp_path, environ={name: "x"}).url == ""
    assert load_in(tmp_path, environ={name: ""}).url is None


def test_an_empty_variable_is_as_good_as_none(tmp_path: Path) -> None:
    settings = load_in(tmp_path, 'url = "postgresql://file/x"', {"DATABASE_URL": "", "DBOPS_URL": ""})
    assert settings.url == "postgresql://file/x"


@pytest.mark.parametrize("flags", [{"url": ""}, {"url": " "}, {"scratch_url": ""}])
def test_an_empty_url_option_is_refused(tmp_path: Path, flags: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match=r"option: (scratch_)?url: .*(empty|not a text)"):
        load_in(tmp_path, flags=flags)


def test_the_file_is_found_above_and_its_paths_start_there(tmp_path: Path) -> None:
    (tmp_path / "dbops.toml").write_text('migrations = "db"\nlock_timeout = "2s"')
    below = tmp_path / "a" / "b"
    below.mkdir(parents=True)
    settings = load(start=below, environ={})
    assert (settings.root, settings.migrations, settings.lock_timeout) == (tmp_path, tmp_path / "db", 2.0)


def test_a_path_option_starts_at_the_current_folder_and_a_variable_at_the_project(tmp_path: Path) -> None:
    (tmp_path / "dbops.toml").write_text("")
    below = tmp_path / "a"
    below.mkdir()
    assert load(start=below, environ={}, flags={"migrations": "m"}).migrations == below / "m"
    assert load(start=below, environ={"DBOPS_MIGRATIONS": "m"}).migrations == tmp_path / "m"


def test_pyproject_counts_only_with_its_section(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text('[tool.dbops]\ntable = "ops.history"\n[tool.dbops.env.ci]\nwait = "1s"')
    below = tmp_path / "sub"
    below.mkdir()
    (below / "pyproject.toml").write_text("this is = no toml, and not read")
    assert load(start=below, environ={}).table == "ops.history"
    assert load(start=below, environ={}, env="ci").wait == 1.0


def test_dbops_toml_comes_before_pyproject(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text('[tool.dbops]\ntable = "a.b"')
    assert load_in(tmp_path, 'table = "c.d"').table == "c.d"


def test_a_named_file(tmp_path: Path) -> None:
    other = tmp_path / "other.toml"
    other.write_text('table = "x.y"')
    assert load_in(tmp_path, 'table = "c.d"', config=other).table == "x.y"
    assert load_in(tmp_path, environ={"DBOPS_CONFIG": str(other)}).table == "x.y"
    with pytest.raises(ConfigError, match=r"gone\.toml: there is no such file"):
        load_in(tmp_path, config=tmp_path / "gone.toml")


PROFILES = 'wait = "9s"\n[env.prod]\nconfirm = "prod"\nurl = "postgresql://prod/x"\n[env.ci]\nwait = "1s"\n'


def test_a_profile_lies_over_the_file(tmp_path: Path) -> None:
    settings = load_in(tmp_path, PROFILES, env="prod")
    assert (settings.env, settings.confirm, settings.url, settings.wait) == (
        "prod",
        "prod",
        "postgresql://prod/x",
        9.0,
    )
    assert load_in(tmp_path, environ={"DBOPS_ENV": "ci"}).wait == 1.0
    assert load_in(tmp_path, environ={"DBOPS_ENV": "ci"}, env="prod").confirm == "prod"


def test_the_environment_wins_over_a_profile(tmp_path: Path) -> None:
    assert load_in(tmp_path, PROFILES, {"DATABASE_URL": "postgresql://env/x"}, env="prod").url == "postgresql://env/x"


@pytest.mark.parametrize("name", ["staging", "production"])
def test_an_unknown_profile_names_the_known_ones(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError, match=f"there is no profile '{name}' in .*dbops.toml") as caught:
        load_in(tmp_path, PROFILES, env=name)
    assert "profiles there: ci, prod" in caught.value.hint


@pytest.mark.parametrize("toml", ['env = "prod"', '[env]\nprod = "x"', "env = 3"])
def test_profiles_of_the_wrong_shape(tmp_path: Path, toml: str) -> None:
    with pytest.raises(ConfigError, match="`env` holds profiles"):
        load_in(tmp_path, toml, env="prod")


@pytest.mark.parametrize(
    ("toml", "environ", "options"),
    [
        ("", {"DBOPS_ENV": "production"}, {}),
        (PROFILES, {"DBOPS_ENV": "production"}, {"env": "ci"}),
        ("embedded = true", {"DBOPS_ENV": "production", "DBOPS_EMBEDDED": "1"}, {}),
        ("[env.production]", {}, {"env": "production"}),
        ("", {"DBOPS_NO_EMBEDDED": "1"}, {}),
        ("", {"DBOPS_EMBEDDED": "off"}, {}),
        ("embedded = false", {}, {}),
        ("", {}, {"flags": {"embedded": False}}),
    ],
)
def test_the_embedded_server_can_be_forbidden(
    tmp_path: Path, toml: str, environ: dict[str, str], options: dict
) -> None:
    settings = load_in(tmp_path, toml, environ, **options)
    assert not settings.embedded
    with pytest.raises(ConfigError, match="the embedded server is forbidden") as caught:
        resolve(settings)
    assert "DATABASE_URL" in caught.value.hint
    assert not (tmp_path / ".dbops").exists()


def test_production_does_not_forbid_a_named_server(tmp_path: Path) -> None:
    settings = load_in(tmp_path, environ={"DBOPS_ENV": "production", "DATABASE_URL": "postgresql://h/d"})
    assert resolve(settings) == "postgresql://h/d"


@pytest.mark.parametrize(
    ("toml", "message"),
    [
        ("lock_timout = 3", "unknown key 'lock_timout'"),
        ("lock_timeout = 'soon'", "lock_timeout: 'soon' is no duration"),
        ("lock_timeout = -1", "lock_timeout: -1 is no duration"),
        ("lock_timeout = nan", "lock_timeout: nan is no duration"),
        ("wait = true", "wait: True is no duration"),
        ("lock_tries = 0", "lock_tries: 0 is less than 1"),
        ("lock_tries = 'many'", "lock_tries: invalid literal"),
        ("embedded = 'maybe'", "embedded: 'maybe' is neither true nor false"),
        ("schemas = []", "schemas: at least one name is needed"),
        ("migrations = 3", "migrations: 3 is not a text"),
        ("url = 3", "url: not a text"),
        ("[lock]\ntimeout = 3", "unknown key 'lock'"),
        ("[env.x]\nfoo = 1", "unknown key 'foo'"),
        ("table = 'a.b'\nurl = \n", "Invalid value .*line 2"),
        ("wait = 1\nwait = 2\n", "Cannot overwrite a value .*line 2"),
    ],
)
def test_a_bad_file_is_named_with_what_is_wrong(tmp_path: Path, toml: str, message: str) -> None:
    with pytest.raises(ConfigError, match=rf"dbops\.toml: {message}") as caught:
        load_in(tmp_path, toml, env="x" if "env.x" in toml else None)
    assert caught.value.exit_code == 2


def test_an_unknown_key_lists_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        load_in(tmp_path, "foo = 1")
    assert caught.value.hint == f"known keys: {', '.join(sorted(KEYS))}"


def test_a_file_that_is_not_utf8(tmp_path: Path) -> None:
    (tmp_path / "dbops.toml").write_bytes(b"table = '\xff'")
    with pytest.raises(ConfigError, match=r"dbops\.toml: 'utf-8' codec"):
        load(start=tmp_path, environ={})


@pytest.mark.parametrize(
    ("environ", "message"),
    [
        ({"DBOPS_WAIT": "long"}, "environment: wait: 'long' is no duration"),
        ({"DBOPS_NO_EMBEDDED": "perhaps"}, "environment: DBOPS_NO_EMBEDDED: 'perhaps'"),
        ({"DATABASE_URL": "mysql://u:hidden@h/d"}, "scheme mysql://"),
    ],
)
def test_a_bad_variable_is_named(tmp_path: Path, environ: dict[str, str], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        load_in(tmp_path, environ=environ)
    assert "hidden" not in caught.value.message + caught.value.hint


def test_every_key_can_be_given_in_the_environment(tmp_path: Path) -> None:
    values = {
        "url": "postgresql://h/d",
        "confirm": "yes",
        "embedded": "0",
        "postgres_version": "16",
        "scratch_url": "postgresql://s/d",
        "migrations": "m",
        "policies": "p",
        "store": "s3://bucket/prefix",
        "workers": "3",
        "tenancy": "owner",
        "keep_daily": "7",
        "keep_weekly": "5",
        "keep_monthly": "6",
        "table": "a.b",
        "schemas": "app, auth",
        "search_path": "app,public",
        "lock_timeout": "500ms",
        "lock_tries": "4",
        "statement_timeout": "1min",
        "wait": "1h",
    }
    assert set(values) == set(KEYS)
    settings = load_in(tmp_path, environ={f"DBOPS_{key.upper()}": value for key, value in values.items()})
    assert settings == Settings(
        url="postgresql://h/d",
        url_source="environment",
        root=tmp_path,
        confirm="yes",
        embedded=False,
        postgres_version=16,
        scratch_url="postgresql://s/d",
        migrations=tmp_path / "m",
        policies=tmp_path / "p",
        store="s3://bucket/prefix",
        workers=3,
        tenancy="owner",
        keep_daily=7,
        keep_weekly=5,
        keep_monthly=6,
        table="a.b",
        schemas=("app", "auth"),
        search_path="app, public",
        lock_timeout=0.5,
        lock_tries=4,
        statement_timeout=60.0,
        wait=3600.0,
    )


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("500ms", 0.5),
        ("3s", 3.0),
        ("3", 3.0),
        (" 1.5 s ", 1.5),
        ("5min", 300.0),
        ("5m", 300.0),
        ("1h", 3600.0),
        (7, 7.0),
        (0.2, 0.2),
    ],
)
def test_durations(text: object, expected: float) -> None:
    assert seconds(text) == pytest.approx(expected)


@pytest.mark.parametrize("text", ["", "s", "3 days", "-3s", "1e3", "3s3s", True, None, math.inf, -1])
def test_what_is_no_duration(text: object) -> None:
    with pytest.raises(ValueError, match="is no duration"):
        seconds(text)


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("postgresql+psycopg://u:p@h:1/d", "postgresql://u:p@h:1/d"),
        ("postgres+asyncpg://h/d?sslmode=require", "postgres://h/d?sslmode=require"),
        ("POSTGRESQL://h/d", "postgresql://h/d"),
        (" postgresql://h/d\n", "postgresql://h/d"),
        ("postgresql://h/d?pgbouncer=true&connection_limit=1", "postgresql://h/d"),
        ("postgresql://h/d?schema=app&sslmode=require&pool_timeout=3", "postgresql://h/d?sslmode=require"),
        ("postgresql://h/d?options=-c%20a%3D1&pgbouncer=true", "postgresql://h/d?options=-c%20a%3D1"),
        ("postgresql:///d?host=/tmp/a+b&schema=x", "postgresql:///d?host=/tmp/a+b"),
        ("postgresql://u:a?b@h/d?pgbouncer=true", "postgresql://u:a?b@h/d"),
        ("postgresql://h1:1,h2:2/d", "postgresql://h1:1,h2:2/d"),
        ("postgresql://[::1/d", "postgresql://[::1/d"),
        ("host=h password=a://b", "host=h password=a://b"),
        ("service=prod", "service=prod"),
    ],
)
def test_other_tools_urls_become_libpqs(url: str, expected: str) -> None:
    assert libpq_url(url) == expected


@given(
    st.text(alphabet=st.characters(codec="utf-8", exclude_characters="?"), max_size=30),
    st.sampled_from(["", "?a=1", "?a=%20+"]),
)
def test_a_url_without_foreign_parts_stays_as_it_is(rest: str, query: str) -> None:
    url = f"postgresql://{rest}{query}".strip()
    assert libpq_url(url) == url


def test_dbmates_search_path_becomes_a_setting(tmp_path: Path) -> None:
    url = "postgresql://h/d?search_path=app,public&sslmode=disable"
    settings = load_in(tmp_path, environ={"DATABASE_URL": url})
    assert (settings.url, settings.search_path) == ("postgresql://h/d?sslmode=disable", "app,public")
    assert load_in(tmp_path, environ={"DATABASE_URL": url, "DBOPS_SEARCH_PATH": "x"}).search_path == "x"
    assert search_path_of("host=h options=?search_path=a") == ""
    assert search_path_of("postgresql://h/d?search_path=a%2Cb") == "a,b"


def test_a_profile_whose_url_is_overridden_is_told(tmp_path: Path) -> None:
    (tmp_path / "dbops.toml").write_text('[env.prod]\nurl = "postgresql://prod/app"\n')
    settings = load(start=tmp_path, env="prod", environ={"DATABASE_URL": "postgresql://dev/app"})
    assert settings.url == "postgresql://dev/app"
    assert "goes before [env.prod]" in settings.notes[0]
    assert load(start=tmp_path, env="prod", environ={}).notes == ()
