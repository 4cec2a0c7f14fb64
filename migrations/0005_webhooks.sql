-- Webhooks: who is told what happens to wallets, and the log of telling.

create table webhook (
    id bigint generated always as identity,
    created_at timestamptz not null default now(),
    rotated_at timestamptz,
    -- Only what happens behind this transfer is told.
    from_seq bigint not null,
    -- Of the request that made it; replayed when it comes again.
    key_hash uuid,
    content_hash uuid,
    -- Of the request that rotated it last.
    rotation_key uuid,
    -- Whose it is.
    caller text not null,
    url text not null,
    events text[] not null,
    secret text not null,
    -- Signs as well for a while after a rotation.
    secret_before text,
    constraint webhook_pkey primary key (id),
    constraint webhook_key unique (key_hash),
    constraint webhook_events_some check (cardinality(events) > 0)
);

create index webhook_caller on webhook (caller, id);

-- A line at which the owner of a wallet wants to be told.
create table alert (
    id bigint generated always as identity,
    created_at timestamptz not null default now(),
    wallet bigint not null,
    from_seq bigint not null,
    line bigint not null,
    key_hash uuid,
    content_hash uuid,
    caller text not null,
    direction text not null,
    constraint alert_pkey primary key (id),
    constraint alert_wallet_fkey foreign key (wallet) references wallet (id),
    constraint alert_key unique (key_hash),
    constraint alert_direction check (direction in ('below', 'above'))
);

create index alert_wallet on alert (wallet, id);

-- What one webhook is told about one wallet. Of a wallet, in the order of the ids.
create table delivery (
    id bigint generated always as identity,
    webhook bigint not null,
    wallet bigint not null,
    -- The transfer it is about.
    seq bigint not null,
    created_at timestamptz not null default now(),
    -- Of the last attempt.
    attempted_at timestamptz,
    attempts int not null default 0,
    -- What the receiver answered last; nothing when it did not.
    status smallint,
    state text not null default 'pending',
    event text not null,
    body text not null,
    -- Why the last attempt failed.
    error text,
    constraint delivery_pkey primary key (id),
    constraint delivery_webhook_fkey foreign key (webhook) references webhook (id) on delete cascade,
    constraint delivery_state check (state in ('pending', 'delivered', 'dead'))
);

create index delivery_log on delivery (webhook, id desc);

-- What was given up.
create index delivery_dead on delivery (webhook) where state = 'dead';

-- What is next for a wallet.
create index delivery_lane on delivery (webhook, wallet, id) where state = 'pending';
