-- Fairness between webhooks: a receiver that times out is paused, and a webhook ends with the API key that created it.

alter table webhook
    -- Attempts that timed out since the receiver last responded.
    add column timeouts int not null default 0,
    -- No attempt starts before this moment.
    add column paused_until timestamptz,
    -- Whether the last attempt ended quickly. A new webhook has to show it first; the existing ones count as quick.
    add column is_prompt boolean not null default true;

alter table webhook alter column is_prompt set default false;

-- Moment since which the delivery has been pending: its creation, or its last replay.
alter table delivery add column pending_since timestamptz not null default now();

-- Whether the caller that created a webhook still exists.
create function webhook_owner_is_active(caller text) returns boolean
language sql stable as $$
    select case
        when caller like 'key:%' then exists (
            select from api_key where id = substr(caller, 5)::bigint and revoked_at is null)
        when caller like 'user:%' then exists (select from app_user where id = substr(caller, 6)::bigint)
        else true
    end
$$;
