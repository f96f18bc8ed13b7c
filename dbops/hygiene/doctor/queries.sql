-- What the doctor asks once, before its checks (dbops/hygiene/doctor/run.py).

-- name: doctor_extensions
select e.extname::text, n.nspname::text, e.extversion
from pg_catalog.pg_extension e join pg_catalog.pg_namespace n on n.oid = e.extnamespace;

-- name: doctor_roles
-- the predefined roles whose rights this session has; a superuser has all
select r.rolname::text from pg_catalog.pg_roles r
where r.rolname ~ '^pg_' and pg_catalog.pg_has_role(r.oid, 'USAGE');

-- name: doctor_relation
select pg_catalog.to_regclass(%(name)s) is not null;

-- name: doctor_leftovers
-- what a concurrent rebuild that failed leaves of an index
select n.nspname::text, c.relname::text
from pg_catalog.pg_index i
  join pg_catalog.pg_index o on o.indrelid = i.indrelid
  join pg_catalog.pg_class c on c.oid = i.indexrelid join pg_catalog.pg_namespace n on n.oid = c.relnamespace
where o.indexrelid = pg_catalog.to_regclass(%(index)s) and not i.indisvalid and c.relname ~ '_ccnew[0-9]*$';
