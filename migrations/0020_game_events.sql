-- Game events: the idempotency keys of POST /api/events, and the leader of the game.

create table game_event_key (
    key_hash uuid constraint game_event_key_pkey primary key,
    content_hash uuid not null,
    at timestamptz not null default now()
);

create index game_event_key_at on game_event_key (at);

-- The player with the highest balance that a main wallet in the default currency has ever had; who reached it first leads.
create table game_leader (
    player text,
    balance bigint not null default 0,
    -- The head of the book when this table came to be: leaders up to there are not announced.
    since bigint not null,
    the_only boolean not null default true constraint game_leader_pkey primary key,
    constraint game_leader_one_row check (the_only)
);

insert into game_leader (since) select max(seq) from ledger.seal where book = 1;
