-- Embeddings, in tables of their own: a change of model fills new rows beside the old ones.
-- No dimension is wired in: embedding_models says what an installation uses.

-- migrate:requires extension vector
-- migrate:up
-- squawk-ignore-file prefer-bigint-over-int
-- dimensions are what vector_dims() returns, an integer

do $$
begin
  if not exists (select from pg_catalog.pg_extension where extname = 'vector') then
    if to_regnamespace('extensions') is not null then
      create extension vector schema extensions; -- where Supabase keeps them
    else
      create extension vector schema public;
    end if;
    comment on extension vector is 'Made by dbops: the vector type and its indexes';
  end if;
  -- wherever the type lives, this transaction finds it; all other names are qualified
  perform set_config('search_path', quote_ident(n.nspname), true)
  from pg_catalog.pg_extension x join pg_catalog.pg_namespace n on n.oid = x.extnamespace
  where x.extname = 'vector';
end
$$;

create table public.embedding_models (
  model text not null,
  dimensions integer not null,
  created_at timestamptz not null default now(),
  constraint embedding_models_pkey primary key (model), -- one name, one dimension: vectors of a model can be compared
  constraint embedding_models_dimensions unique (model, dimensions),
  constraint embedding_models_model_not_empty check (length(model) > 0),
  constraint embedding_models_dimensions_range check (dimensions between 1 and 16000)
);
-- nobody's data, so not forced: its owner adds models
alter table public.embedding_models enable row level security;
comment on table public.embedding_models is 'The models that this installation embeds with';
insert into public.embedding_models (model, dimensions)
values ('text-embedding-3-small', 1536), ('all-MiniLM-L6-v2', 384);

create table public.memory_embeddings (
  user_id uuid not null,
  memory_id uuid not null,
  model text not null,
  dimensions integer not null,
  embedding vector not null,
  created_at timestamptz not null default now(),
  constraint memory_embeddings_pkey primary key (user_id, memory_id, model),
  constraint memory_embeddings_memory foreign key (user_id, memory_id)
    references public.user_memories (user_id, id) on delete cascade,
  constraint memory_embeddings_model foreign key (model, dimensions)
    references public.embedding_models (model, dimensions),
  constraint memory_embeddings_dimensions_match check (vector_dims(embedding) = dimensions)
);
alter table public.memory_embeddings enable row level security;
alter table public.memory_embeddings force row level security;
comment on table public.memory_embeddings is 'A memory as a vector, once a model';

create table public.summary_embeddings (
  user_id uuid not null,
  chat_id uuid not null,
  model text not null,
  dimensions integer not null,
  embedding vector not null,
  created_at timestamptz not null default now(),
  constraint summary_embeddings_pkey primary key (user_id, chat_id, model),
  constraint summary_embeddings_summary foreign key (user_id, chat_id)
    references public.chat_summaries (user_id, chat_id) on delete cascade,
  constraint summary_embeddings_model foreign key (model, dimensions)
    references public.embedding_models (model, dimensions),
  constraint summary_embeddings_dimensions_match check (vector_dims(embedding) = dimensions)
);
alter table public.summary_embeddings enable row level security;
alter table public.summary_embeddings force row level security;
comment on table public.summary_embeddings is 'A chat''s summary as a vector, once a model';

-- Queries say this for the operator, whose schema they can't know. A body after RETURN is bound now, and inlined:
-- it costs nothing, and an index on the operator serves it.
create function public.embedding_distance(a vector, b vector) returns double precision
  language sql immutable strict parallel safe return a <=> b;
comment on function public.embedding_distance(vector, vector) is 'Cosine distance: 1 - similarity';

revoke all on table public.embedding_models, public.memory_embeddings, public.summary_embeddings
  from public, anon, authenticated;
grant select on table public.embedding_models to authenticated;
grant select, insert, update, delete on table public.memory_embeddings, public.summary_embeddings to authenticated;
grant select, insert, update, delete on table
  public.embedding_models, public.memory_embeddings, public.summary_embeddings to service_role;
revoke all on function public.embedding_distance(vector, vector) from public, anon, authenticated;
grant execute on function public.embedding_distance(vector, vector) to authenticated, service_role;

-- migrate:down
drop function public.embedding_distance;
drop table public.summary_embeddings;
drop table public.memory_embeddings;
drop table public.embedding_models;
do $$
begin
  -- only what was made here, and only while nothing else needs it
  if exists (
    select from pg_catalog.pg_extension
    where extname = 'vector'
      and obj_description(oid, 'pg_extension') = 'Made by dbops: the vector type and its indexes'
  ) then
    drop extension vector;
  end if;
exception when dependent_objects_still_exist then
  raise notice 'the extension vector stays: other objects need it';
end
$$;
