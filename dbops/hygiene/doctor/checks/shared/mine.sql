-- what a user made: no system's, no extension's, nothing of a platform that he cannot change
mine as (
  select c.*, n.nspname, pg_catalog.format('%I.%I', n.nspname, c.relname) as name
  from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace
  where n.nspname <> 'information_schema' and n.nspname !~ '^pg_' and c.relpersistence <> 't'
    and pg_catalog.pg_get_userbyid(c.relowner) !~ '^(supabase_|rdsadmin$|cloudsqladmin$|azuresu$)'
    and not exists (select from pg_catalog.pg_depend d
                    where d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass and d.objid = c.oid and d.deptype = 'e')
)
