-- severity: error
-- summary: A setting with which a crash or a fault loses data, or nothing is vacuumed
-- why: Right for a scratch server, never for data that matters.
with risky (name, bad, effect) as (values
  ('fsync', 'off', 'a crash of the machine destroys the data'),
  ('full_page_writes', 'off', 'a crash of the machine leaves torn pages'),
  ('zero_damaged_pages', 'on', 'damaged pages are emptied without an error'),
  ('ignore_checksum_failure', 'on', 'damaged pages are read as if they were whole'),
  ('autovacuum', 'off', 'dead rows stay, statistics grow old, ids wrap around'),
  ('track_counts', 'off', 'autovacuum does not see what it has to do'))
select pg_catalog.format('setting %s', s.name) as object, pg_catalog.format('%s is %s: %s', s.name, s.setting, r.effect) as message,
  pg_catalog.format('ALTER SYSTEM SET %I = %s; SELECT pg_reload_conf();', s.name, case r.bad when 'on' then 'off' else 'on' end) as fix
from pg_catalog.pg_settings s join risky r on r.name = s.name and r.bad = s.setting
