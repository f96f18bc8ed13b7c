-- The triggers that keep the word sets run as the owner of the table, whom FORCE ROW LEVEL SECURITY binds as well. No definition
-- can name him: each installation has another.
do $$
begin
  drop policy if exists keeper on public.memory_tokens;
  execute pg_catalog.format('create policy keeper on public.memory_tokens to %I using (true) with check (true)',
    (select pg_catalog.pg_get_userbyid(c.relowner) from pg_catalog.pg_class c
     where c.relname operator(pg_catalog.=) 'memory_tokens' and c.relnamespace operator(pg_catalog.=) 'public'::pg_catalog.regnamespace));
end
$$;
