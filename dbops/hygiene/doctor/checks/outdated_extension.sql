-- severity: info
-- summary: An extension whose newer version is installed on the server
-- why: The library was updated with the packages, the objects in the database were not: new functions are missing, old faults stay.
select pg_catalog.format('extension %s', e.extname) as object,
  pg_catalog.format('version %s; the server has %s', e.extversion, a.default_version) as message,
  pg_catalog.format('ALTER EXTENSION %I UPDATE;', e.extname) as fix
from pg_catalog.pg_extension e join pg_catalog.pg_available_extensions a on a.name = e.extname
where a.default_version <> e.extversion
