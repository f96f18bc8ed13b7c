-- What the schema needs of Supabase (the API roles, auth.users, auth.uid(), auth.role(), auth.jwt()), made where it is missing.
-- What exists is not touched. What is made here carries a comment, by which the down part knows it again.

-- migrate:up
do $$
declare
  ours constant text := 'Made by dbops: stands in for what Supabase has';
  api_role text;
begin
  foreach api_role in array array['anon', 'authenticated', 'service_role'] loop
    if to_regrole(api_role) is null then
      begin
        -- the service works for all users: it passes row level security by
        execute format('create role %I nologin noinherit %s', api_role,
                                  case api_role when 'service_role' then 'bypassrls' end);
        execute format('comment on role %I is %L', api_role, ours);
      exception when duplicate_object or unique_violation then
        null; -- roles belong to the cluster: another database's migration was quicker
      end;
    end if;
  end loop;

  if to_regnamespace('auth') is null then
    create schema auth;
    execute format('comment on schema auth is %L', ours);
    grant usage on schema auth to anon, authenticated, service_role;
  end if;

  if to_regclass('auth.users') is null then
    create table auth.users (
      id uuid not null default gen_random_uuid(),
      email text,
      raw_app_meta_data jsonb not null default '{}',
      raw_user_meta_data jsonb not null default '{}',
      created_at timestamptz not null default now(),
      constraint users_pkey primary key (id)
    );
    execute format('comment on table auth.users is %L', ours);
    -- closed to users, as Supabase's is; not forced, for its owner must add users
    alter table auth.users enable row level security;
    revoke all on table auth.users from public, anon, authenticated;
    grant select, insert, update, delete on table auth.users to service_role;
  end if;

  -- bodies after RETURN are bound now, so no search_path can bend them, and they are inlined
  if to_regprocedure('auth.jwt()') is null then
    create function auth.jwt() returns jsonb language sql stable parallel safe
      return coalesce(nullif(current_setting('request.jwt.claim', true), ''),
                      nullif(current_setting('request.jwt.claims', true), ''))::jsonb;
    execute format('comment on function auth.jwt() is %L', ours);
  end if;

  if to_regprocedure('auth.uid()') is null then
    create function auth.uid() returns uuid language sql stable parallel safe
      return coalesce(nullif(current_setting('request.jwt.claim.sub', true), ''),
                      nullif(current_setting('request.jwt.claims', true), '')::jsonb ->> 'sub')::uuid;
    execute format('comment on function auth.uid() is %L', ours);
  end if;

  if to_regprocedure('auth.role()') is null then
    create function auth.role() returns text language sql stable parallel safe
      return coalesce(nullif(current_setting('request.jwt.claim.role', true), ''),
                      nullif(current_setting('request.jwt.claims', true), '')::jsonb ->> 'role');
    execute format('comment on function auth.role() is %L', ours);
  end if;
end
$$;

-- migrate:down
-- The roles stay: they belong to the whole cluster, and other databases may grant to them.
do $$
declare
  ours constant text := 'Made by dbops: stands in for what Supabase has';
  made regprocedure;
begin
  for made in
    select p.oid from pg_catalog.pg_proc p
    where p.pronamespace = to_regnamespace('auth') and obj_description(p.oid, 'pg_proc') = ours
  loop
    execute format('drop function %s', made);
  end loop;

  if obj_description(to_regclass('auth.users'), 'pg_class') = ours then
    drop table auth.users;
  end if;

  if obj_description(to_regnamespace('auth'), 'pg_namespace') = ours then
    drop schema auth;
  end if;
end
$$;
