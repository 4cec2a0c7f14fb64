-- The installation: one row that tells this database from any other.
-- Logs name it, so that two deployments are never taken for one.

create table installation (
    id uuid not null default gen_random_uuid(),
    created_at timestamptz not null default now(),
    -- There is one, and it stays.
    only_one boolean not null default true,
    constraint installation_only_one primary key (only_one),
    constraint installation_is_true check (only_one)
);

insert into installation default values;
