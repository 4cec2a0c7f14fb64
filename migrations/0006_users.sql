-- Users, their sessions, API keys, and the trail of what happened around them.

create table app_user (
    id bigint generated always as identity,
    created_at timestamptz not null default now(),
    -- Of the request that registered; replayed when it comes again.
    key_hash uuid,
    content_hash uuid,
    age smallint,
    role text not null default 'user',
    username text,
    email text not null,
    first_name text,
    last_name text,
    -- Argon2id, as a PHC string.
    password_hash text not null,
    constraint app_user_pkey primary key (id),
    constraint app_user_key unique (key_hash),
    constraint app_user_role check (role in ('user', 'admin')),
    constraint app_user_username_length check (char_length(username) between 3 and 32),
    constraint app_user_email_length check (char_length(email) between 3 and 254),
    constraint app_user_age_sane check (age between 0 and 150)
);

-- One person is found however the name is written.
create unique index app_user_username on app_user (lower(username));
create unique index app_user_email on app_user (lower(email));

-- A token is good while its session is here: that is what makes a logout work at once, on every process.
create table session (
    id uuid not null,
    app_user bigint not null,
    created_at timestamptz not null default now(),
    expires_at timestamptz not null,
    constraint session_pkey primary key (id),
    constraint session_user_fkey foreign key (app_user) references app_user (id) on delete cascade
);

create index session_of_user on session (app_user);
create index session_expiry on session (expires_at);

-- What tokens are signed with. The newest signs; the others are believed until they retire.
create table jwt_key (
    kid text not null,
    created_at timestamptz not null default clock_timestamp(),
    retires_at timestamptz,
    secret text not null,
    constraint jwt_key_pkey primary key (kid)
);

create table api_key (
    id bigint generated always as identity,
    created_at timestamptz not null default now(),
    revoked_at timestamptz,
    last_used_at timestamptz,
    -- Until then the secret before the last rotation is believed as well.
    overlap_until timestamptz,
    name text not null,
    scopes text[] not null,
    -- SHA-256 of the secret, which nobody can guess.
    secret_hash bytea not null,
    secret_hash_before bytea,
    constraint api_key_pkey primary key (id),
    constraint api_key_name_length check (char_length(name) between 1 and 100),
    constraint api_key_scopes_some check (cardinality(scopes) > 0)
);

-- How often somebody tried in vain, by whom or from where: a hash, so that nothing personal is kept.
create table attempt (
    key uuid not null,
    last_at timestamptz not null default now(),
    -- Nothing is tried before then.
    locked_until timestamptz,
    count int not null,
    constraint attempt_pkey primary key (key)
);

create index attempt_age on attempt (last_at);

-- What happened around users and keys: who did what, to what, from where, and how it ended. No secret is in it.
create table trail (
    id bigint generated always as identity,
    at timestamptz not null default clock_timestamp(),
    trace_id uuid,
    actor text not null,
    action text not null,
    subject text,
    outcome text not null,
    address text,
    constraint trail_pkey primary key (id),
    constraint trail_outcome check (outcome in ('done', 'refused'))
);

create index trail_subject on trail (subject, id desc);

create function trail_refuse_change() returns trigger
language plpgsql as $$
begin
    raise exception 'the trail is append-only' using errcode = 'RW000';
end
$$;

create trigger trail_is_append_only before update or delete or truncate on trail
    for each statement execute function trail_refuse_change();
alter table trail enable always trigger trail_is_append_only;

-- A wallet that belongs to a user; the others belong to whoever runs the service.
alter table wallet
    add column app_user bigint,
    add constraint wallet_user_fkey foreign key (app_user) references app_user (id);

create index wallet_user on wallet (app_user, id) where app_user is not null;
create index wallet_of_nobody on wallet (id) where app_user is null;

-- Who placed it may end it.
alter table hold add column caller text not null default 'anybody';

do $$
begin
    if exists (select from pg_roles where rolname = 'revwallet_app') then
        revoke update, delete, truncate on trail from revwallet_app;
    end if;
end
$$;
