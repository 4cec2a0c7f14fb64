-- The games store: publishers, the catalog, and limited things.

-- Payables may fall below zero, as system accounts may: a refund can leave a publisher in debt.
-- No scan: the rows that are there satisfied a narrower rule.
alter table ledger.transfer
    drop constraint transfer_floor,
    drop constraint transfer_ceiling,
    add constraint transfer_floor check (
        0 <= debit_balance or (-1099511627776 < debit and debit < 0) or debit <= -18014398509481984
    ) not valid,
    add constraint transfer_ceiling check (
        credit_balance <= 9007199254740991 or (-1099511627776 < credit and credit < 0) or credit <= -18014398509481984
    ) not valid;

create or replace function observer.kind(kind smallint) returns text
language sql immutable as $$
    select (array['open', 'close', 'freeze', 'unfreeze', null, null, null, null, null,
        'deposit', 'withdrawal', 'transfer', 'fee', 'hold', 'capture', 'void', 'expiry', 'refund', 'purchase',
        'exchange', 'payout', 'tax', 'probe'])[kind]
$$;

create or replace function observer.wallet(account bigint) returns bigint
language sql immutable as $$
    select case
        when 0 < account then account
        when account < -(1::bigint << 40) and -(1::bigint << 54) < account then -(1::bigint << 40) - account
    end
$$;

create table publisher (
    id bigint generated always as identity,
    created_at timestamptz not null default now(),
    app_user bigint not null,
    -- Hundredths of a percent; null is the fee of the settings.
    fee int,
    name text not null,
    key_hash uuid,
    content_hash uuid,
    constraint publisher_pkey primary key (id),
    constraint publisher_app_user_fkey foreign key (app_user) references app_user (id),
    constraint publisher_app_user unique (app_user),
    constraint publisher_key unique (key_hash),
    constraint publisher_fee check (0 <= fee and fee <= 10000),
    -- The number of a payable has 21 bits for it.
    constraint publisher_id check (id < 2097152)
);

-- A limited quantity of a thing, such as the copies of a game. It is claimed and given back by rows with running numbers:
-- of several transactions that want the same number one inserts it, and no counter is updated.
create table stock (
    id bigint generated always as identity,
    quantity int not null,
    constraint stock_pkey primary key (id),
    constraint stock_quantity check (0 <= quantity)
);

create table stock_claim (
    stock bigint not null,
    number int not null,
    constraint stock_claim_pkey primary key (stock, number)
);

create table stock_return (
    stock bigint not null,
    number int not null,
    constraint stock_return_pkey primary key (stock, number)
);

-- What is left of a stock.
create function stock_left(p_stock bigint) returns int
language sql stable as $$
    select quantity
        + coalesce((select number from stock_return where stock = id order by number desc limit 1), 0)
        - coalesce((select number from stock_claim where stock = id order by number desc limit 1), 0)
    from stock where id = p_stock
$$;

create table game (
    id bigint generated always as identity,
    created_at timestamptz not null default now(),
    updated_at timestamptz not null default now(),
    -- Null is the house.
    publisher bigint,
    -- Of downloadable content.
    base bigint,
    -- The limited copies; null without a limit.
    stock bigint,
    -- In minor units of the currency; 0 is free.
    price bigint not null,
    -- Changes with the game and its prices: a purchase names the revision that its price is from.
    revision int not null default 1,
    currency text not null,
    state text not null,
    title text not null,
    genre text not null,
    description text not null,
    search tsvector not null generated always as (to_tsvector('simple', title || ' ' || genre || ' ' || description)) stored,
    key_hash uuid,
    content_hash uuid,
    constraint game_pkey primary key (id),
    constraint game_publisher_fkey foreign key (publisher) references publisher (id),
    constraint game_base_fkey foreign key (base) references game (id),
    constraint game_stock_fkey foreign key (stock) references stock (id),
    constraint game_key unique (key_hash),
    constraint game_price check (0 <= price),
    constraint game_base_differs check (base <> id),
    -- A deleted game was never sold.
    constraint game_state check (state in ('draft', 'published', 'retired', 'deleted'))
);

create index game_published on game (id) where state = 'published';
create index game_genre on game (lower(genre), id) where state = 'published';
create index game_publisher on game (publisher, id) where state <> 'deleted';
create index game_base on game (base) where base is not null;
create index game_search on game using gin (search) where state = 'published';

-- Prices in further currencies.
create table game_price (
    game bigint not null,
    price bigint not null,
    currency text not null,
    constraint game_price_pkey primary key (game, currency),
    constraint game_price_game_fkey foreign key (game) references game (id),
    constraint game_price_price check (0 <= price)
);

-- Changes with each change of what the catalog shows, in its transaction: a cache that knows the revision is fresh.
create table catalog (
    revision bigint not null default 1,
    the_only boolean not null default true,
    constraint catalog_pkey primary key (the_only),
    constraint catalog_one_row check (the_only)
);
insert into catalog default values;
